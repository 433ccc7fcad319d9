"""What there is: presets, plugins and this machine's packages go in; pages for people, and completion for shells, come out."""
