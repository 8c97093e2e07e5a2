"""Outputs as Hugging Face's `datasets` loads them, by the lines that the README gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import load_dataset


def rows(out: Path, format: str, cache: Path, below: str = "") -> list[dict[str, Any]]:
    """By index; the columns of the record, `image`, and of webdataset `class`, from `.cls`.

    With `below` of "*/" those of all runs in `out`.
    """
    keywords: dict[str, Any] = {"split": "train", "cache_dir": str(cache)}
    if format == "imagefolder":
        found = list(load_dataset(str(out), **keywords))
    elif format == "parquet":
        found = list(load_dataset("parquet", data_files=f"{out}/{below}*.parquet", **keywords))
    else:
        shards = load_dataset("webdataset", data_files=f"{out}/{below}*.tar", **keywords)
        found = [{"image": r["png"], "class": int(r["cls"]), **r["json"]} for r in shards]
    return sorted(found, key=lambda row: row["index"])
