"""The dataset card of a finished run, Hugging Face's README.md (docs/datasets.md).

`card.py` writes it, from a YAML header for `datasets` (`header.py`) and a text (`text.py`) that
ends with the command that makes the run again (`command.py`).
"""
