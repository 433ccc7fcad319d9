"""What the command shows before and after a training: that it starts, what it is about to do, where everything is."""
