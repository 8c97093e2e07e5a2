"""How an ONNX network takes images: the description that users write for its file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synfer_rt.errors import UserError

CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}
"""The order of a network's channels, and how many numbers mean and std have for it."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RESIZING = ("bilinear", "bicubic")
_MOST = 10.0
"""Means and deviations of pixels in [0, 1] are smaller, those of pixels up to 255 much larger."""


@dataclass(frozen=True)
class Description:
    """Input and output of a network [N, C, S, S] or [N, S, S, C] -> [N, K].

    Its input is `(x - mean) / std` with x in [0, 1], resized to `input_size` pixels with
    antialiasing, as Pillow does. `channels` is a key of CHANNELS, and mean and std have as many
    numbers, in that order. `output` is the kind of its output, `output_name` the output that has
    it, None if only one can be meant.
    """

    input_size: int
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str
    output_name: str | None = None
    resizing: str = "bilinear"

    def settings(self) -> dict[str, Any]:
        """The description as JSON values."""
        return {
            "input_size": self.input_size,
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "resizing": self.resizing,
        }


def parse(
    text: str, argument: str, outputs: Sequence[str], resizing: Sequence[str] = RESIZING[:1]
) -> Description:
    """Read `64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5`, `224,bgr,imagenet` or `64,grey`.

    The size comes first. One of `outputs` says what kind the output is, by default the first, and
    `output=NAME` which of several outputs it is. Without mean and std the network takes images in
    [0, 1]. One of `resizing` may be named. Raises UserError for anything else, naming the
    `argument`.
    """
    size, *words = [word.strip() for word in text.split(",")]
    given: dict[str, str] = {}
    try:
        for word in words:
            name, value = _field(word, outputs, resizing)
            if name in given:
                raise ValueError(f"{word} beside {given[name]}")
            given[name] = value
        channels, pixels = given.get("channels", "rgb"), int(size)
        mean = std = None
        if "normalisation" in given:
            mean, std = (numbers[::-1] if channels == "bgr" else numbers for numbers in IMAGENET)
        if "mean" in given:
            mean = tuple(float(x) for x in given["mean"].split("/"))
        if "std" in given:
            std = tuple(float(x) for x in given["std"].split("/"))
    except ValueError as error:
        raise UserError(
            f"`{argument}` {text!r} cannot be read ({error}); write it like "
            "64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5 or 224,rgb,imagenet."
        ) from None
    count = CHANNELS[channels]
    return Description(
        pixels,
        channels,
        mean or (0.0,) * count,
        std or (1.0,) * count,
        given.get("output", outputs[0]),
        given.get("output_name"),
        given.get("resizing", "bilinear"),
    )


def _field(word: str, outputs: Sequence[str], resizing: Sequence[str]) -> tuple[str, str]:
    """What a word of a description is about, and its value. Raises ValueError."""
    key, _, value = word.partition("=")
    for name, words in (
        ("channels", CHANNELS),
        ("normalisation", ("imagenet",)),
        ("output", outputs),
        ("resizing", resizing),
    ):
        if word in words:
            return name, word
    if key in ("mean", "std"):
        return key, value
    if key == "output" and value:
        return "output_name", value
    raise ValueError(word)


def check(what: str, outputs: Sequence[str], network: Any) -> None:
    """Raise UserError unless the fields of a description can be meant.

    `network` has the fields of Description, `what` names it, and `output` must be one of `outputs`.
    """
    mean: tuple[float, ...] = network.mean
    std: tuple[float, ...] = network.std
    count = CHANNELS.get(network.channels)
    if count is None or network.output not in outputs or network.input_size < 1:
        raise UserError(
            f"{what} has channels {network.channels!r}, output {network.output!r}, size "
            f"{network.input_size}; write {', '.join(CHANNELS)}, {' or '.join(outputs)}, and a "
            "size of at least 1."
        )
    if len(mean) != count or len(std) != count or not all(std):
        raise UserError(
            f"{what} needs {count} numbers of mean and of std (none 0) for {network.channels}, not "
            f"{list(mean)} and {list(std)}; write as many."
        )
    if not all(map(math.isfinite, (*mean, *std))):
        raise UserError(f"{what} has mean {list(mean)} and std {list(std)}; write finite numbers.")
    if max(map(abs, (*mean, *std))) > _MOST:
        raise UserError(
            f"{what} has mean {list(mean)} and std {list(std)}, which are of pixels up to 255; "
            "divide them by 255: here pixels are in [0, 1]."
        )
