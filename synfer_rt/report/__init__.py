"""`synfer-rt report`: one self-contained page of a run, or of a table of `label`.

`sources.py` opens what is shown. `reading.py` goes through its images once: records become typed
arrays (`columns.py`), images thumbnails and small features (`pictures.py`), which are kept in a
temporary file (`blocks.py`). From the arrays follow the figures (`facts.py`, then a module for each
section), and `page.py` puts everything into one file. What runs in the browser is in `page/`.
"""
