"""`python -m synfer_rt.bench.faults` does faults to real runs, which must cost them nothing.

`trials.py` does the faults of `injection.py` to the runs of `scenes.py`, and `differences.py` tells
what they have cost. Those of Ray and of object stores (`of_ray.py`, `of_stores.py`) need a cluster
(`ray_nodes.py`), a server (`object_store.py`) and a proxy before it (`proxy.py`), which tests use,
too. `page.py` writes the page.
"""
