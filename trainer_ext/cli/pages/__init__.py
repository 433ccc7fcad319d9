"""The commands that show runs. In go the folders of runs; out come HTML pages, and what they say in one line."""
