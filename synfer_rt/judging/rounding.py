"""How probabilities are rounded."""

DECIMALS = 6
"""Decimals of the probabilities, in decisions as in records. So a run that resumes decides from its
records as it would have decided without the interruption."""
