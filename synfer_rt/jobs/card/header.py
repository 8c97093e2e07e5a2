"""The YAML header of a dataset card, as the Hugging Face Hub and `datasets` define it.

The fields are those of the Hub's dataset cards (huggingface/hub-docs, datasetcard.md): `configs`
says which files are the data, `dataset_info` which columns and splits they have. The header is
written as JSON values in a YAML mapping; YAML 1.2 contains JSON.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from synfer_rt.data.image_format import of_settings
from synfer_rt.records import ARROW, FILE_NAME, Value, blank_record, fields_of

_SHARDS = {"webdataset": ["*.tar"], "parquet": ["*.parquet"]}
"""The files with the samples, as patterns, by format."""
_LABELS = ("requested_label", "label")
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
"""The Hub's size categories, each ten times the one before."""
_YAML_WORDS = frozenset(("n", "no", "null", "off", "on", "true", "false", "y", "yes"))
"""Words that YAML takes for something else than a text, in any case."""
_TAGS = ("synthetic", "facial-expression-recognition", "action-units", "synfer-rt")


def header(settings: Mapping[str, Any], images: int, size: int, pretty_name: str) -> str:
    """The header of a run with these settings, of so many images in `size` bytes, as YAML."""
    format = settings["format"]
    name = split_name(settings)
    split: dict[str, Any] = {"name": name, "num_bytes": size, "num_examples": images}
    info = {
        "features": features(settings),
        "splits": [split],
        "download_size": size,
        "dataset_size": size,
    }
    of_folder = ["metadata.jsonl", f"*/*.{of_settings(settings).suffix}"]
    config: dict[str, Any] = {
        "config_name": "default",
        "data_files": [{"split": name, "path": _SHARDS.get(format, of_folder)}],
    }
    if format == "imagefolder":  # its loader takes the columns from here alone
        config["features"] = features(settings)
    return _yaml(
        {
            "pretty_name": pretty_name,
            # What a checkpoint's licence says of its images is for its user to find out.
            "license": "unknown",
            "task_categories": ["image-classification"],
            "tags": list(_TAGS),
            "size_categories": [size_category(images)],
            "dataset_info": info,
            "configs": [config],
        }
    )


def split_name(settings: Mapping[str, Any]) -> str:
    """The split by which `datasets` knows the run: that of its plan, or `train`."""
    return re.sub(r"\W", "_", settings.get("split") or "train")


def size_category(images: int) -> str:
    """The Hub's size category of a dataset of so many images."""
    return _SIZES[min(max(len(str(images)) - 3, 0), len(_SIZES) - 1)]


def features(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns that `datasets` finds in a run with these settings, with their types."""
    classes = _class_label(settings["classes"])
    record = {FILE_NAME.name: FILE_NAME.empty}
    record |= blank_record(settings["classes"], settings["au_vocabulary"], fields_of(settings))
    columns = [
        {"name": name, **(classes if name in _LABELS else _type(value))}
        for name, value in record.items()
    ]
    image = {"dtype": "image"}
    if settings["format"] == "webdataset":  # a column for each kind of file
        return [
            {"name": of_settings(settings).suffix, **image},
            {"name": "json", "struct": columns},
            {"name": "cls", **classes},
            {"name": "__key__", "dtype": "string"},
            {"name": "__url__", "dtype": "string"},
        ]
    if settings["format"] == "imagefolder":  # the image takes the place of its file's name
        return [{"name": "image", **image}, *columns[1:]]
    return [{"name": "image", **image}, *columns]


def _class_label(classes: Sequence[str]) -> dict[str, Any]:
    """The type of a label. Places of a scheme that are no expression may share a word."""
    used = Counter[str]()
    names: dict[str, str] = {}
    for number, name in enumerate(classes):
        used[name] += 1
        names[str(number)] = name if used[name] == 1 else f"{name} {used[name]}"
    return {"dtype": {"class_label": {"names": names}}}


def _type(value: Value) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"struct": [{"name": name, **_type(part)} for name, part in value.items()]}
    return {"dtype": ARROW[type(value)]}


def _yaml(value: Any, indent: str = "") -> str:
    """A mapping, or a list of mappings or texts, in YAML's block style; the leaves are JSON."""
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value).items()
        return "".join(f"{indent}{_text(key)}:{_nested(part, indent)}" for key, part in pairs)
    items = cast(list[Any], value)
    return "".join(f"{indent}-{_item(part, indent)}" for part in items)


def _nested(value: Any, indent: str) -> str:
    if isinstance(value, dict | list):
        return "\n" + _yaml(value, indent + "  ")
    return f" {_text(value)}\n"


def _item(value: Any, indent: str) -> str:
    """An item of a list, after its dash: a mapping begins on the same line."""
    if isinstance(value, dict):
        return " " + _yaml(value, indent + "  ").lstrip(" ")
    return _nested(value, indent)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if value.isascii() and value.isidentifier() and value.lower() not in _YAML_WORDS:
        return value
    return json.dumps("".join(c if c.isprintable() else " " for c in value), ensure_ascii=False)
