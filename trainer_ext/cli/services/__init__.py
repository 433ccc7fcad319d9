"""Commands that go on until they are stopped: names of plugins' offers go in; a service comes out."""
