"""Bundles as older releases wrote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from synfer_rt.bundle import MANIFEST, Bundle, open_bundle


def as_written_before(bundle: Bundle, directory: Path) -> Bundle:
    """A copy of a bundle in which FERAnno has its former name, `annotator`, in all files."""
    shutil.copytree(bundle.path, directory)
    (directory / "feranno.onnx").rename(directory / "annotator.onnx")
    path = directory / MANIFEST
    fields = json.loads(path.read_text())
    fields["engines"] = {
        "annotator" if name == "feranno" else name: entry
        for name, entry in fields["engines"].items()
    }
    fields["engines"]["annotator"]["file"] = "annotator.onnx"
    fields["files"]["annotator.onnx"] = fields["files"].pop("feranno.onnx")
    fields["files"] = dict(sorted(fields["files"].items()))
    path.write_text(json.dumps(fields, indent=1, ensure_ascii=False))
    return open_bundle(directory)
