"""Core-sets: of a run's images those that stand best for each class, as a dataset of their own.

`coreset.py` is the whole. `stock.py` has the images to choose from, `features.py` what a network
sees in them, and `choice.py` chooses.
"""
