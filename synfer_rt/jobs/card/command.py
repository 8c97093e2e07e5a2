"""The command that makes a run again, from the settings that run.json has of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from synfer_rt.backends import computation
from synfer_rt.bundle.sizes import format_size
from synfer_rt.data.writers import SHARD_SIZE, run_file
from synfer_rt.diffusion.inversion import FIXED_POINT
from synfer_rt.faces import weights
from synfer_rt.jobs.photo_reading import READ_AS, read_as
from synfer_rt.records import CORESET

_OPTIONS = (
    *(
        "prompt",
        "negative_prompt",
        "quality",
        "solver",
        "guidance",
        "au_scale",
        "seed",
        "accept_rate",
    ),
    *("threshold", "cache_every", "eta", "format", "image_format", "image_quality"),
    "aus_from",
)
"""Settings of `sample` that its options have under the same names, in the same form."""
_OF_AUGMENT = (
    *("noise_scale", "repair_steps", "repair_strength", "attempts", "seed", "format"),
    *("image_format", "image_quality"),
)
_KNOWN = frozenset(
    (
        *_OPTIONS,
        *_OF_AUGMENT,
        *("command", "bundle", "count", "labels", "aus", "steps", "timesteps"),
        *("layout", "photo_set", "layout_strength", "semantic_guidance", "accepted_per_class"),
        *("guidance_interval", "size", "shard_size", "label_scheme", "classes", "au_vocabulary"),
        *("originals", "decode_originals", "align", "dataset", "balance", "calibration"),
        *("keep_label", "inversion", *READ_AS.values()),
        *run_file.NOT_COMPARED,
        *computation.FIELDS,
    )
)

_PLACEHOLDERS = {
    "BUNDLE": "the directory of the model's bundle",
    "RUN": "the directory of the run that the images were chosen from",
    "FILE": "the network whose features count",
    "SPEC": "the description of that network's input",
    "PHOTOS": "the photos",
    "DATASET": "the images that were read",
    "COUNTS": "the file with the numbers of --balance",
    "RUN_JSON": "the run's run.json",
    "CALIBRATION": "the calibration's file",
    "DETECTOR": "the file that finds faces",
}
"""What stands for something that settings do not name: most of all paths."""


def command(settings: Mapping[str, Any]) -> str | None:
    """The command line of a run with these settings; None if options cannot express them.

    It names everything that decides the images. What settings do not name is in capitals, for which
    `filling_in` has a sentence.
    """
    if CORESET in settings:
        return _coreset(settings)
    if settings.keys() - _KNOWN or settings.get("aus") == {}:
        return None
    if isinstance(settings.get("accepted_per_class"), Mapping):
        return None
    augments = settings.get("command") == "augment"
    needed = ("balance",) if augments else ("labels", "layout")
    if any(settings.get(name) is None for name in needed):
        return None
    words = list(_augment(settings) if augments else _sample(settings))
    if settings.get("shard_size", SHARD_SIZE) != SHARD_SIZE:
        words.append(f"--shard-size {settings['shard_size']}")
    if (backend := settings.get("backend")) is not None:
        words.append(f"--backend {backend}")
    name = "augment DATASET" if augments else "sample"
    return " ".join(("synfer-rt", name, "--bundle BUNDLE", *words, "--out OUT"))


def filling_in(line: str) -> str:
    """A sentence on the words in capitals that the reader of a command replaces; "" without any."""
    words = line.split()
    named = [f"{word} by {what}" for word, what in _PLACEHOLDERS.items() if word in words]
    return f"Replace the words in capitals: {', '.join(named)}." if named else ""


def _coreset(settings: Mapping[str, Any]) -> str:
    """The command that chooses a core-set."""
    of_bundle = settings["coreset_features"]["of_bundle"]
    words = ["synfer-rt distill RUN", "--bundle BUNDLE" if of_bundle else "--features FILE SPEC"]
    words.append(f"--count {settings['count']} --method {settings[CORESET]}")
    words.append(f"--quotas {settings['coreset_quotas']}")
    if settings["coreset_seed"]:
        words.append(f"--seed {settings['coreset_seed']}")
    if settings["coreset_every"]:
        words.append("--every")
    return " ".join((*words, f"--format {settings['format']}", "--out OUT"))


def _sample(settings: Mapping[str, Any]) -> Iterator[str]:
    """The options of a run of `sample`."""
    if (wanted := settings.get("accepted_per_class")) is None:
        yield f"--count {settings['count']}"
    else:
        yield f"--count {wanted} --count-accepted --budget {settings['count']}"
    if settings.get("keep_label"):
        yield "--keep-label"
    else:
        yield f"--labels {shlex.quote(','.join(settings['labels']))}"
    aus: Mapping[str, float] = settings.get("aus") or {}
    for unit, intensity in aus.items():
        yield f"--au {unit}={intensity}"
    yield from _named(settings, _OPTIONS)
    if (timesteps := settings.get("timesteps")) is None:
        yield from _named(settings, ("steps",))
    else:
        yield f"--timesteps {','.join(map(str, timesteps))}"
    layout = settings["layout"]
    yield from _photos(settings) if layout == "photos" else (f"--layout {layout}",)
    if layout != "none":
        yield from _named(settings, ("layout_strength",))
    if (interval := settings.get("guidance_interval")) is not None:
        low, high = interval
        yield f"--guidance-interval {low}:{'' if high is None else high}"
    if (guidance := settings.get("semantic_guidance")) is not None:
        yield f"--semantic-guidance {guidance['strength']} --semantic-form {guidance['form']}"
        yield f"--semantic-start {guidance['start']} --semantic-every {guidance['every']}"
    yield from _calibrated(settings)
    if (size := settings.get("size")) is not None:
        yield f"--size {format_size(tuple(size))}"


def _photos(settings: Mapping[str, Any]) -> Iterator[str]:
    """The options that say where photos are, and how they are read and inverted."""
    yield "--layout-from PHOTOS"
    for name, value in read_as(settings).items():
        yield f"--{name.replace('_', '-')} {shlex.quote(value)}"
    yield f"--inversion {settings.get('inversion', FIXED_POINT)}"
    yield from _aligned(settings)


def labelling(settings: Mapping[str, Any]) -> Iterator[str]:
    """The options of a table of `label` that decide what it says of an image."""
    yield from _named(settings, ("accept_rate", "threshold", "backend"))
    yield from _calibrated(settings)
    yield from _aligned(settings)


def _calibrated(settings: Mapping[str, Any]) -> Iterator[str]:
    """The options that say how votes are calibrated."""
    if (calibration := settings.get("calibration")) is not None:
        yield f"--calibration CALIBRATION --coverage {calibration['coverage']}"


def _augment(settings: Mapping[str, Any]) -> Iterator[str]:
    """The options of a run of `augment`."""
    balance = settings["balance"]
    yield f"--balance {'COUNTS' if isinstance(balance, Mapping) else balance}"
    yield from _named(settings, _OF_AUGMENT)
    if settings.get("decode_originals"):
        yield "--decode-originals"
    yield from _aligned(settings)


def _aligned(settings: Mapping[str, Any]) -> Iterator[str]:
    """The options that say how faces are found and aligned."""
    if (align := settings.get("align")) is not None:
        yield f"--align --face {align['face']}"
        if align["detector"] != weights.SHA256:
            yield "--face-detector DETECTOR"


def _named(settings: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if (value := settings.get(name)) is not None:
            yield f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
