"""A manifest is written completely or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synfer_rt.bundle import MANIFEST, write_manifest
from synfer_rt.errors import UserError


def test_writing_a_manifest_hashes_every_file(copy: Path) -> None:
    (copy / "denoiser.onnx.data").write_bytes(b"weights")
    (copy / "README.md").write_text("a model card")
    fields = json.loads((copy / MANIFEST).read_text())
    del fields["format"], fields["files"]
    files = write_manifest(copy, fields).manifest["files"]
    assert sorted(files) == [
        "README.md", "classifier.small.onnx", "conditioner.onnx", "decoder.onnx", "denoiser.onnx",
        "denoiser.onnx.data", "encoder.onnx", "layouts.npz", "tokenizer.json",
    ]  # fmt: skip
    assert files["denoiser.onnx.data"]["bytes"] == 7


def test_a_bad_manifest_is_not_written(copy: Path) -> None:
    before = (copy / MANIFEST).read_bytes()
    fields = json.loads(before) | {"prediction_type": "sample"}
    with pytest.raises(UserError, match="unknown prediction type"):
        write_manifest(copy, fields)
    assert (copy / MANIFEST).read_bytes() == before
    assert not [file for file in copy.iterdir() if file.name.startswith(MANIFEST + ".")]
