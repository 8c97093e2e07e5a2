"""Programs that peers run in, each by the Python of an environment of its own.

`serve.py NAME` answers the requests of bench/worker.py with the module NAME of this folder. Nothing
here imports synfer-rt, except `release.py`, which runs the release that its environment has.
"""
