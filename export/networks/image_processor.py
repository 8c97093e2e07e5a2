"""The image processors of transformers as products with matrices, which have a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synfer_rt.bundle.sizes import Size
from synfer_rt.errors import UserError
from synfer_rt.export.networks.resizing import matrix

PREPROCESSOR = "preprocessor_config.json"
_DONE = {f"do_{step}" for step in ("resize", "rescale", "normalize", "center_crop", "convert_rgb")}
_CONVNEXT_WARPS = 384
"""The processor of ConvNeXt crops no images of this size or more."""
_TRIED = (80, 96)
_ROUNDING = 3 / 255
"""Pillow rounds to whole levels after each of the two axes."""


@dataclass(frozen=True)
class Preparation:
    """Preparation of images [3, H, W] in [0, 1]: resized, cropped at their centre, normalised.

    `size` is (height, width), or the length of the shorter edge if the shape is kept; `crop` is
    (height, width), None for the whole image. `mean` and `std` are of the three channels.
    """

    size: Size | int
    crop: Size | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resampling: Image.Resampling

    def matrices(self, image: Size) -> tuple[np.ndarray, np.ndarray]:
        """`rows` and `columns`, of which `rows @ x @ columns.T` is x [..., H, W], prepared.

        The normalisation is left out.
        """
        size = self._resized(image)
        rows, columns = (
            matrix(old, new, self.resampling)[(new - kept) // 2 :][:kept]
            for old, new, kept in zip(image, size, self.crop or size, strict=True)
        )
        return rows, columns

    def _resized(self, image: Size) -> Size:
        if not isinstance(self.size, int):
            return self.size
        height, width = (self.size * edge // min(image) for edge in image)
        return height, width


def read_preparation(folder: Path) -> Preparation:
    """The preparation of images in preprocessor_config.json.

    Raises UserError for anything but resizing, cropping, rescaling and normalisation. That nothing
    was missed shows in an image that transformers' own processor prepares.
    """
    import transformers

    # transformers knows the defaults of each kind of processor.
    processor: Any = transformers.AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, backend="pil"
    )
    if getattr(processor, "crop_pct", 1) is None:
        processor.crop_pct = 1  # older releases wrote null for no crop
    fields = processor.to_dict()
    if odd := _odd(fields):
        raise _refusal(folder, ", ".join(odd))
    preparation = _parsed(fields)
    image = np.random.default_rng(0).integers(100, 156, (*_TRIED, 3), np.uint8)
    wanted = np.asarray(processor(image, return_tensors="np")["pixel_values"])[0]
    rows, columns = preparation.matrices(_TRIED)
    found = rows @ (image.transpose(2, 0, 1) / 255) @ columns.T
    mean, std = (np.reshape(x, (3, 1, 1)) for x in (preparation.mean, preparation.std))
    if wanted.shape != found.shape or np.abs(wanted * std + mean - found).max() > _ROUNDING:
        raise _refusal(folder, f"more than its fields say, as {type(processor).__name__} does")
    return preparation


def _odd(fields: Mapping[str, Any]) -> list[str]:
    """What is not resizing, cropping, rescaling and normalisation."""
    steps = {name for name in fields if name.startswith("do_")} - _DONE
    odd = [f"{name} true" for name in sorted(steps) if fields.get(name)]
    odd += [] if fields.get("do_resize") else ["do_resize false"]
    if {*fields["size"]} not in ({"height", "width"}, {"shortest_edge"}):
        return [*odd, f"the size {fields['size']}"]
    size, crop = _sizes(fields)
    smallest = size if isinstance(size, int) else min(size)
    odd += [f"the crop {crop} of {size}"] if crop and max(crop) > smallest else []
    return odd


def _parsed(fields: Mapping[str, Any]) -> Preparation:
    size, crop = _sizes(fields)
    scale = 255 * fields["rescale_factor"] if fields.get("do_rescale") else 255
    offset = 1 if fields.get("do_rescale") and fields.get("rescale_offset") else 0
    mean, std = np.zeros(3), np.ones(3)
    if fields.get("do_normalize"):
        mean, std = mean + fields["image_mean"], std * fields["image_std"]
    if fields.get("include_top"):  # EfficientNet's images are divided by the deviation again
        std = std * fields["image_std"]
    return Preparation(
        size,
        crop,
        tuple(((mean + offset) / scale).tolist()),
        tuple((std / scale).tolist()),
        Image.Resampling(fields["resample"]),
    )


def _sizes(fields: Mapping[str, Any]) -> tuple[Size | int, Size | None]:
    """To what images are resized, and what is kept of them; see Preparation."""
    given, kind = fields["size"], str(fields.get("image_processor_type"))
    edge = given.get("shortest_edge")
    crop = None
    if fields.get("do_center_crop"):
        crop = fields["crop_size"]["height"], fields["crop_size"]["width"]
    if edge is None:
        return (given["height"], given["width"]), crop
    if "ConvNext" in kind:
        if edge >= _CONVNEXT_WARPS:
            return (edge, edge), crop
        return int(edge / fields["crop_pct"]), (edge, edge)
    if "Levit" in kind:
        return int(256 / 224 * edge), crop
    return int(edge / fields.get("crop_pct", 1)), crop


def _refusal(folder: Path, how: str) -> UserError:
    return UserError(
        f"{folder / PREPROCESSOR} prepares images with {how}, which cannot be exported; give a "
        "classifier whose images are resized, cropped at the centre, rescaled and normalised, and "
        "nothing else."
    )
