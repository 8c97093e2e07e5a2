"""Labelled image datasets in many formats: where each image is, and what it shows.

`read_dataset` lists a dataset; `formats` has a module for each format.
"""

from synfer_rt.data.datasets.dataset import Dataset
from synfer_rt.data.datasets.formats.registry import FORMATS
from synfer_rt.data.datasets.items import Item, Skipped
from synfer_rt.data.datasets.reading import read_dataset, read_datasets
from synfer_rt.data.datasets.refusals import refuse_inside

__all__ = [
    "FORMATS",
    "Dataset",
    "Item",
    "Skipped",
    "read_dataset",
    "read_datasets",
    "refuse_inside",
]
