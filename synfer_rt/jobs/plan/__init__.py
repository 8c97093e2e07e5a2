"""Plans: datasets that a file describes (docs/plans.md).

`reading.py` reads one from its file (`document.py`, `fields.py`) or from a run.json (`rerun.py`)
and gives a `Plan` (`plan.py`). `classes.py`, `prompts.py` and `aus.py` read its parts, with numbers
from `tables.py` and checks from `values.py`. `preview.py` says what it comes to.
"""
