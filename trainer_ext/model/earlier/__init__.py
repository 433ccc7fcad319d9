"""Earlier weights beside those that are trained: the old policy of an algorithm, and a reference that moves."""
