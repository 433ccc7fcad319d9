"""Drawing outside of a training: a run's folder or names of rewards go in; its settings and weights, or judges, come out."""
