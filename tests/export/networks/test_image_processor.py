"""Images are prepared as transformers' own processors prepare them, or the processor is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the build side needs synfer-rt[export]")
import transformers

from synfer_rt.errors import UserError
from synfer_rt.export.networks.image_processor import Preparation, read_preparation

EDGE = {"size": {"shortest_edge": 28}}
CROP = {"crop_size": {"height": 24, "width": 24}}
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {"size": {"height": 24, "width": 24}},
    "ViT, wide": {"size": {"height": 24, "width": 36}},
    "Bit": EDGE | CROP,
    "ConvNext": EDGE,
    "ConvNext, not cropped": {"size": {"shortest_edge": 384}, "image_mean": 0.5, "image_std": 0.25},
    "ConvNext, of an older release": EDGE | {"crop_pct": None},
    "EfficientNet": {"size": {"height": 32, "width": 32}},
    "EfficientNet, cropped": {"size": {"height": 32, "width": 32}, "do_center_crop": True} | CROP,
    "EfficientNet, from -1 to 1": {
        "size": {"height": 32, "width": 32},
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "include_top": False,
        "do_normalize": False,
    },
    "MobileNetV1": EDGE | CROP,
    "MobileNetV2": EDGE | {"crop_size": {"height": 25, "width": 20}},
    "PoolFormer": EDGE | CROP,
    "Levit": EDGE | CROP,
    "CLIP": EDGE | CROP,
}


def read(folder: Path, kind: str, **fields: Any) -> Preparation:
    given = {"image_processor_type": f"{kind}ImageProcessor", **fields}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    return read_preparation(folder)


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_are_prepared_as_by_the_processor(name: str, tmp_path: Path) -> None:
    kind, fields = name.partition(",")[0], PROCESSORS[name]
    found = read(tmp_path, kind, **fields)
    processor: Any = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    if getattr(processor, "crop_pct", 1) is None:
        processor.crop_pct = 1
    mean, std = (np.reshape(x, (3, 1, 1)) for x in (found.mean, found.std))
    for size in ((64, 64), (48, 41), (20, 33)):
        # Far enough from black and white that no filter leaves the range, where Pillow would cut.
        image = np.random.default_rng(1).integers(100, 156, (*size, 3), np.uint8)
        wanted = processor(image, return_tensors="np")["pixel_values"][0]
        rows, columns = found.matrices(size)
        prepared = (rows @ (image.transpose(2, 0, 1) / 255) @ columns.T - mean) / std
        assert wanted.shape == prepared.shape
        assert (np.abs(wanted - prepared) * std).max() < 3 / 255  # Pillow rounds twice


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("ViT", {"do_resize": False}, "with do_resize false, which"),
        ("ViT", {"do_flip_channel_order": True}, "with do_flip_channel_order true, which"),
        ("ViT", {"size": {"shortest_edge": 24, "longest_edge": 48}}, "with the size {"),
        ("Bit", {"size": 24, "crop_size": 25}, r"with the crop \(25, 25\) of 24, which"),
        (
            "Perceiver",  # crops before it resizes
            {"size": 24, "crop_size": 20},
            "with more than its fields say, as PerceiverImageProcessor.* does, which",
        ),
    ],
)
def test_a_processor_that_cannot_be_built_is_refused(
    kind: str, fields: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        read(tmp_path, kind, **fields)
