"""Whether an output is what its run.json says: all images there, whole, and where they belong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from synfer_rt.data.image_format import ImageFormat, of_settings
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.image_check import problem
from synfer_rt.errors import UserError
from synfer_rt.jobs.found_samples import SAMPLES, Fault, FoundSample
from synfer_rt.records import Record
from synfer_rt.vocabulary.label_schemes import scheme

_TOLERANCE = 1e-3
"""How far the sum of probabilities may be from 1: each is rounded to six decimals."""
_MOST_SPANS, _MOST_RUNS = 20, 5
"""More of them are not listed."""


def settings_of(out: Path) -> dict[str, Any]:
    """The settings of the run in `out`. Raises UserError if they are missing or damaged."""
    _check_place(out)
    settings = run_file.load(out)
    try:
        sound = (
            settings["format"] in SAMPLES
            and run_file.count(settings) >= 0
            and int(settings["shard_size"]) > 0
            and all(isinstance(name, str) for name in settings["classes"])
        )
        of_settings(settings)
    except (KeyError, TypeError, ValueError, UserError):
        sound = False
    if not sound:
        raise UserError(
            f"{run_file.path(out)} is damaged; restore it, or repeat the run in another directory."
        )
    return settings


def _check_place(out: Path) -> None:
    """Raise UserError, which names the right directory if it is near, unless `out` holds a run."""
    output = run_file.output_of(out)
    if output is not None and run_file.exists(output):
        raise UserError(f"{out} is the own folder of the run in {output}; give that directory.")
    if run_file.exists(out):
        return
    below = [path for path in sorted(out.glob("*")) if run_file.output_of(path) is None]
    if runs := [str(path) for path in below if run_file.exists(path)]:
        names = ", ".join(runs[:_MOST_RUNS]) + (", …" if len(runs) > _MOST_RUNS else "")
        raise UserError(f"{out} holds runs in its folders; give one of them: {names}.")
    raise UserError(
        f"{out} holds no run of synfer-rt ({run_file.path(out)} is missing); give a directory "
        "that `synfer-rt sample` or `synfer-rt augment` wrote, and keep the folder beside it."
    )


def faults(
    out: Path, settings: Mapping[str, Any], on_progress: Callable[[int], None] = lambda images: None
) -> Iterator[Fault]:
    """Everything that is wrong with the run in `out`, as it is found; all of it is read.

    `on_progress` is given the number of images read so far.
    """
    count, classes = run_file.count(settings), list(settings["classes"])
    format = of_settings(settings)
    growing = sorted(run_file.growing(out))
    seen: dict[int, str] = {}
    read = 0
    for found in SAMPLES[settings["format"]](out, settings):
        if isinstance(found, Fault):
            yield found
            continue
        read += 1
        on_progress(read)
        for what in (*_problems(found, classes, format), *_index_problems(found, count, seen)):
            yield Fault(found.place, what)
    for file in growing:
        yield Fault(str(file), "it is not whole yet")
    # Of a run that goes on, what comes after the last image is not missing.
    stop = max(seen, default=-1) + 1 if growing else count
    if missing := [index for index in range(stop) if index not in seen]:
        yield Fault(str(out), f"{len(missing)} of {stop} images are missing: {spans(missing)}")


def _index_problems(found: FoundSample, count: int, seen: dict[int, str]) -> Iterator[str]:
    """What is wrong with a sample's index, which becomes one of those `seen`, with its place."""
    index = None if found.record is None else found.record.get("index")
    if not isinstance(index, int) or not 0 <= index < count:
        yield f"its index must be one of 0 to {count - 1}, not {index!r}"
    elif index in seen:
        yield f"the index {index} occurs twice, also at {seen[index]}"
    else:
        seen[index] = found.place


def _problems(found: FoundSample, classes: list[str], format: ImageFormat) -> Iterator[str]:
    """What is wrong with a sample but for its index."""
    if found.image is not None and (damage := problem(found.image, format)):
        yield f"its image: {damage}"
    record = found.record
    if record is None:
        yield "its record cannot be read"
        return
    label = record.get("label")
    if label not in classes:
        yield f"its label is not a class of the run: {label!r}"
    elif found.folder is not None and found.folder != label:
        yield f"its label is {label}, but it lies in the folder {found.folder}"
    elif found.number is not None and (other := _class_of(found.number, record)) != label:
        yield f"its label is {label}, but its .cls says {other}"
    asked = record.get("requested_label")
    if bool(record.get("rectified")) != (label != asked):
        yield f"its label is {label} and {asked} was requested, but rectified says otherwise"
    yield from _wrong_numbers(record)
    yield from _wrong_sum(_fields(record.get("probabilities")))


def _class_of(number: bytes, record: Record) -> str:
    try:
        return scheme(record["label_scheme"])[int(number)]
    except (KeyError, IndexError, TypeError, ValueError, UserError):
        return repr(number.decode("utf-8", "replace"))


def _wrong_numbers(record: Record) -> Iterator[str]:
    """The numbers of a record that are not finite, and shares outside 0 to 1."""
    for name, value in record.items():
        fields = _fields(value)
        for key, number in ({"": value} if fields is None else fields).items():
            what = f"{name} of {key}" if key else name
            if isinstance(number, float) and not math.isfinite(number):
                yield f"{what} is {number}"
            elif name in ("probabilities", "aus") and not _is_share(number):
                yield f"{what} must be a number of 0 to 1, not {number!r}"


def _wrong_sum(probabilities: Record | None) -> Iterator[str]:
    if probabilities is None:
        yield "its probabilities are not a number for each class"
    elif all(map(_is_share, probabilities.values())):
        total = sum(probabilities.values())
        if total and abs(total - 1) > _TOLERANCE:
            yield f"its probabilities add up to {total:g}, not 1"


def _fields(value: Any) -> Record | None:
    """The fields that a value has, None if it is a plain one."""
    return cast(Record, value) if isinstance(value, dict) else None


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int) and 0 <= value <= 1


def spans(indices: Iterable[int]) -> str:
    """Rising indices in words: 3, 7 to 9."""
    spans: list[list[int]] = []
    for index in indices:
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    words = [str(a) if a == b else f"{a} to {b}" for a, b in spans[:_MOST_SPANS]]
    return ", ".join(words) + (" and more" if len(spans) > _MOST_SPANS else "")
