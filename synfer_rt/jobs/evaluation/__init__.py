"""The evaluation of a run: what papers report of it, measured by networks that had no part in it.

`evaluate.py` is the whole, from an `EvaluationJob` (`job.py`) to its result. `networks.py` opens
the networks and `independence.py` refuses those that guided or labelled the run. `passes.py` takes
the images (`images.py`) through them; `features.py` and `readers.py` say what they found.
"""
