"""Names of splits, train, val and test: in folders, files and cells of tables."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

_WORDS = {
    "train": ("train", "training", "trainset", "trainingset", "traindata", "trainval"),
    "val": ("val", "valid", "validation", "valset", "validset", "validationset", "publictest"),
    "test": ("test", "testing", "testset", "testingset", "testdata", "privatetest"),
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
_ALONE = frozenset(("dev", "eval", "evaluation"))
"""Also val, but only beside the words of _BESIDE: `dev_patel` is a person."""
_DATASETS = ("fer", "ferplus", "raf", "db", "rafdb", "affectnet", "expw")
_SUFFIXES = ("csv", "tsv", "txt", "jsonl", "json", "tar", "zip", "parquet")
_PARTS = ("set", "split", "part", "of", "data", "images", "image", "faces", "labels", "list")
_BESIDE = frozenset((*_DATASETS, *_SUFFIXES, *_PARTS))
_WORD = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@lru_cache(maxsize=4096)
def split_of(name: str) -> str | None:
    """The split that a word in the name of a folder or file, or in a cell of a table, stands for.

    `FER2013Train`, `test_aligned` and `fer2013-test-00000-of-00001.parquet` have such a word.
    FER2013's PublicTest is val, since its competition was tuned on it, and its PrivateTest is test.
    None if there is no such word, or two contradict each other, as in `train_test_split`.
    """
    words = [word.lower() for word in _WORD.findall(_HUMP.sub(" ", name))]
    text = " ".join(words).replace("public test", "publictest")
    named = {_SPLITS[word] for word in text.split() if word in _SPLITS}
    others = {word for word in words if not word.isdigit()} - _BESIDE
    if len(others) == 1 and others <= _ALONE:
        return "val"
    return named.pop() if len(named) == 1 else None


def is_split(name: str) -> bool:
    """Whether a name is nothing but a word for a split."""
    return name.strip().lower().replace(" ", "") in _SPLITS


def are_splits(names: Collection[str]) -> bool:
    """Whether names are nothing but words for splits; `dev` only counts beside another one."""
    left = [name for name in names if name.strip().lower() not in _ALONE]
    return bool(left) and all(map(is_split, left))


def split_of_path(name: str) -> str | None:
    """The split that the folders or archives in the name of an item stand for, or None.

    The first whose whole name is a split counts, such as `val` in `train_data/val/1.jpg`; else the
    first with a split in its name.
    """
    return _split_of_folders(name.rpartition("/")[0])


@lru_cache(maxsize=4096)
def _split_of_folders(path: str) -> str | None:
    folders = path.split("/")
    alone = (split_of(folder) for folder in folders if is_split(folder))
    return next(alone, None) or next(filter(None, map(split_of, folders)), None)
