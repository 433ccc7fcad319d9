"""From the options of a command line to a trainer. Parsed options and a preset go in; a [`DDPOTrainer`] comes out."""
