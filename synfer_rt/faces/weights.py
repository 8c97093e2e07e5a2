"""Where the networks of the face detector are: in a package or a file. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from synfer_rt.errors import UserError, installing
from synfer_rt.faces.detection import FaceDetector
from synfer_rt.faces.mtcnn import FILES, Mtcnn
from synfer_rt.faces.yunet import Yunet

_PACKAGE, _FOLDER = "mtcnnruntime", "weights"
"""mtcnn-runtime (Apache-2.0) has MTCNN's networks as ONNX files. Its code is not used."""
SHA256 = "63bf4945f869ab20adadebbff8fb975abf37601ce8ca7e441c360625d07524be"
"""The hash of the detector that the extra `align` brings."""


def installed() -> FaceDetector | None:
    """The detector of the extra `align`, None if it is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / _FOLDER
        if all((folder / name).is_file() for name in FILES):
            return Mtcnn(folder)
    return None


def detector(file: Path | None) -> FaceDetector:
    """The detector in `file`, by default that of the extra `align`.

    Raises UserError for a file that is none, and where none is installed.
    """
    if file is not None:
        return Yunet(file)
    found = installed()
    if found is None:
        raise UserError(
            f"`align` needs a face detector: {installing('align')}, or name an ONNX file of YuNet "
            "with `face_detector`."
        )
    return found
