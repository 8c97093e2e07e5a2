"""Runs on a Ray cluster: actors hold engines, and shards are the tasks.

    from synfer_rt.ray import sample_dataset

    faces = sample_dataset(count=1000, labels=["happy", "sad"])

The package `ray` is imported when something runs on it, and not before.
"""

from synfer_rt.ray.dataset import sample_dataset

__all__ = ["sample_dataset"]
