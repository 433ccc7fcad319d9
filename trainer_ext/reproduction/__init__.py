"""
Whether a task was reproduced, and on what: the folder of a run that `ddpo reproduce` made goes in; `reproduction.json` with the
outcome of each rule comes out. Needs neither torch nor the trainer.
"""
