#!/usr/bin/env bash
# Two Parquet files whose ClassLabel columns list the same classes in another order: load_dataset
# (datasets 5.2.0) takes the order of the first file for both, so every label of the second turns
# into another class, without an error; so does a test split beside a train split. The order stands
# in each file, and concatenate_datasets refuses the same two. It hurts whoever lays synthetic faces
# in one class order beside a real set in another.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1
HF_HOME=$scratch/cache env/bin/python - <<'PYTHON'
import sys

import datasets
import pyarrow
from datasets import ClassLabel, Dataset, Features, concatenate_datasets, load_dataset

datasets.disable_progress_bars()
print(f"datasets {datasets.__version__}, pyarrow {pyarrow.__version__}")


def write(path, names):
    features = Features({"label": ClassLabel(names=names)})
    written = Dataset.from_dict({"label": ["happy", "sad"]}, features=features)
    written.to_parquet(path)
    return written


def words(rows):
    return [rows.features["label"].int2str(row["label"]) for row in rows]


first = write("first.parquet", ["happy", "sad"])
second = write("second.parquet", ["sad", "happy"])
print(f"written: {words(first)} and {words(second)}")

both = load_dataset("parquet", data_files=["first.parquet", "second.parquet"], split="train")
print(f"read as one split: {words(both)}")
splits = load_dataset("parquet", data_files={"train": "first.parquet", "test": "second.parquet"})
print(f"read as test: {words(splits['test'])}")
try:
    concatenate_datasets([first, second])
    refused = False
except ValueError as error:
    refused = True
    print(f"concatenate_datasets: {error}")
swapped = ["sad", "happy"]
same = words(both)[2:] == swapped and words(splits["test"]) == swapped and refused
sys.exit(0 if same else "The loader reads other labels now: update this finding.")
PYTHON
