"""The guard of the drives against random drives: `python -m kvstrata.lab.guardfuzz`.

What is on a drive is known because this package put it there; the guard is never asked whether its own answer is right.
"""
