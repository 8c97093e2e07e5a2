"""A benchmark's result as JSON values, and the file that keeps it from visit to visit."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.bench import machine, summary
from synfer_rt.bench.gpu_monitor import open_meter
from synfer_rt.bench.measure import Measured
from synfer_rt.bench.peers import PACKAGES
from synfer_rt.bench.settings import Settled
from synfer_rt.data.writers.atomic import write_whole
from synfer_rt.errors import UserError
from synfer_rt.jobs.diagnosis import RUNTIMES

FORMAT = 3
"""Of the JSON that a benchmark is written as."""

_PACKAGES = (
    "synfer-rt",
    "numpy",
    *RUNTIMES,
    *("nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-cublas-cu12", "nvidia-cublas"),
    *("cuda-python", "nvidia-ml-py"),
)


def result_of(settled: Settled, measured: Measured, command: str) -> dict[str, Any]:
    """The result of `benchmark.bench`."""
    packages = (*_PACKAGES, *(PACKAGES if settled.peers else ()))
    return {
        "format": FORMAT,
        "machine": machine.describe(settled.setup.threads, packages),
        "settings": settled.described(command),
        "visits": measured.visits,
        **summary.summary_of(measured.visits, measured.images, measured.flops),
        "flops": measured.flops,
        "peak": measured.peak,
        "failed": measured.failed,
        "left_out": [*settled.left_out, *_untold(settled), *measured.left_out],
    }


@dataclass(frozen=True)
class Kept:
    """The file, if there is one, in which a benchmark keeps what it has measured so far.

    With `resume` it goes on with what the file has.
    """

    file: Path | None
    resume: bool
    command: str

    def begun(self, settled: Settled) -> Measured | None:
        """What the file has; None unless that is to be gone on with.

        Raises UserError for a file that is no result, and one of other settings or machine.
        """
        if not self.resume or self.file is None or not self.file.exists():
            return None
        try:
            former = json.loads(self.file.read_text())
            same = former["format"] == FORMAT and former["machine"]["cpu"] == machine.cpu_model()
            ours = settled.described(self.command)
            other = [name for name in ours if former["settings"].get(name) != ours[name]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{self.file} is no result of `bench`; give `json` another file, or leave out "
                "`resume`."
            ) from None
        other = [name for name in other if name not in ("command", "seconds", "warm_up_steps")]
        if other or not same:
            what = ", ".join(other) or "release or machine"
            raise UserError(
                f"{self.file} was begun with another {what}; give the same settings, or leave out "
                "`resume`."
            )
        images = {name: _decoded(pngs) for name, pngs in former.get("images", {}).items()}
        return Measured(former["visits"], images, former["flops"], former["peak"])

    def keep(self, settled: Settled, measured: Measured) -> None:
        """Write what is measured so far, with the images that are yet to be compared."""
        if self.file is None or not measured.visits:
            return
        if self.file.exists() and not self.file.is_file():  # such as /dev/stdout
            return
        if self.file.exists() and not self.file.is_file():  # such as /dev/stdout
            return
        result = result_of(settled, measured, self.command)
        images = {name: _encoded(array) for name, array in measured.images.items()}
        text = json.dumps({**result, "images": images}, indent=1)
        write("json", self.file, f"{text}\n")


def _encoded(images: np.ndarray) -> list[str]:
    """Images uint8 [n, H, W, 3] as PNG files in base64."""
    from PIL import Image

    encoded: list[str] = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        encoded.append(base64.b64encode(file.getvalue()).decode())
    return encoded


def _decoded(pngs: list[str]) -> np.ndarray:
    from PIL import Image

    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in pngs]
    return np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8)


def _untold(settled: Settled) -> list[dict[str, str]]:
    """What is not known of the GPU for lack of a package or of the driver."""
    if not settled.setup.on_gpu or importlib.util.find_spec("pynvml") is not None:
        return []
    if open_meter() is None:
        return [
            {
                "section": "busy share, memory, power and energy of the GPU",
                "why": "neither nvidia-ml-py nor nvidia-smi is there; run "
                "`pip install nvidia-ml-py`",
            }
        ]
    return [
        {
            "section": "energy as the GPU counts it",
            "why": "nvidia-ml-py is not installed, so nvidia-smi was read twice a second; run "
            "`pip install nvidia-ml-py`",
        }
    ]


def write(argument: str, file: Path, text: str) -> None:
    """Write `text` into `file`, which `argument` names in the UserError where that fails."""
    try:
        if file.exists() and not file.is_file():  # such as /dev/stdout
            file.write_bytes(text.encode())
        else:
            write_whole(file, text.encode())
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}); give `{argument}` another file."
        ) from None


def write_page(file: Path, text: str, result: Mapping[str, Any]) -> None:
    """Write a page, and the result that it was made of beside it. Raises UserError."""
    write("page", file, text)
    write("page", file.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
