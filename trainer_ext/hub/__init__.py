"""
What comes after training: a run's folder goes in; files that other programs load come out.
"""
