"""
Evaluations on the command line. The options of a run go in; those of its preset's evaluation that fit, and its cost, come out.
"""
