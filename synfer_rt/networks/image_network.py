"""An ONNX network of images in ONNX Runtime, with the preparation that it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends.engine import first_line
from synfer_rt.backends.sessions import open_session
from synfer_rt.bundle.files import file_entry
from synfer_rt.data.pixels import GREY
from synfer_rt.errors import UserError
from synfer_rt.networks import onnx_file
from synfer_rt.networks.descriptions import Description, check
from synfer_rt.networks.resampling import matrix

AT_ONCE = 32
"""Images in every call of a network.

Fewer are filled up, since a runtime may compute a row otherwise in a call of another size. So no
result depends on how many images are given at once.
"""
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class ImageNetwork:
    """The network in an ONNX file, described by `described`, for images of any size.

    `what` names it in messages, and `size` is the length of a row of its output. Raises UserError
    for a file that cannot be loaded, or that is not what the description says.
    """

    def __init__(
        self,
        path: Path,
        described: Description,
        what: str,
        outputs: tuple[str, ...],
        backend: str = "onnxruntime-cpu",
        threads: int = 1,
    ) -> None:
        check(f"The {what} {path.name}", outputs, described)
        self.path, self.described, self.what = path, described, what
        self.file = onnx_file.read(path)
        name = described.output_name
        content = None
        if name is not None and name not in self.file.outputs:
            if name not in onnx_file.values_of(self.file.nodes):
                raise UserError(
                    f"{path} has no value {name!r}; its outputs are "
                    f"{', '.join(self.file.outputs)}, and any value of its graph may be named."
                )
            content = self.file.with_output(name)
        try:
            self._session = open_session(path, backend, threads, content=content)
        except Exception as error:  # the runtime's exceptions share no base class but this
            raise UserError(
                f"{path} cannot be loaded by {backend} ({first_line(error)}); export it with the "
                "operators of ONNX alone."
            ) from None
        self._take_input()
        self.output = self._output(name)
        self._matrices: dict[tuple[int, int], np.ndarray] = {}
        size = described.input_size
        self.size = self(np.full((1, 3, size, size), 0.5, np.float32)).shape[1]

    def _take_input(self) -> None:
        """Find out how the input is laid out. Raises UserError for another than is described."""
        entries, size = self._session.get_inputs(), self.described.input_size
        count = len(self.described.mean)
        entry = entries[0]
        self._entry, shape = entry.name, list(entry.shape)
        self._channels_last = not _fits(shape, (count, size, size))
        fits = not self._channels_last or _fits(shape, (size, size, count))
        if len(entries) != 1 or not fits or entry.type not in _FLOATS:
            raise UserError(
                f"{self.path} takes {[list(each.shape) for each in entries]}, not images "
                f"[batch, {count}, {size}, {size}]; correct the description of its input."
            )
        self._type = _FLOATS[entry.type]
        self._rows = shape[0] if isinstance(shape[0], int) else AT_ONCE

    def _output(self, name: str | None) -> str:
        names = [each.name for each in self._session.get_outputs()]
        if name is not None:
            return name
        if len(names) == 1:
            return names[0]
        raise UserError(
            f"{self.path} has the outputs {', '.join(names)}, and which one is meant is not known; "
            "add output=NAME to the description."
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Its output for images float32 [n, 3, H, W] in [0, 1]: float32 [n, K].

        Maps [n, K, h, w] are averaged over their positions. Raises UserError if it fails, for an
        output of another shape, and for one that is not finite.
        """
        prepared = self._prepared(np.asarray(images, np.float32))
        parts = [
            self._run(prepared[begin : begin + self._rows])
            for begin in range(0, len(prepared), self._rows)
        ]
        return np.concatenate(parts)

    def _run(self, rows: np.ndarray) -> np.ndarray:
        missing = self._rows - len(rows)
        filled = np.concatenate([rows, np.repeat(rows[-1:], missing, 0)]) if missing else rows
        try:
            found = self._session.run([self.output], {self._entry: filled})[0]
        except Exception as error:
            raise UserError(
                f"{self.path} fails on images ({first_line(error)}); export it again, or correct "
                "the description of its input."
            ) from None
        values: np.ndarray = np.asarray(found, np.float32)
        if values.ndim == 4:
            values = values.mean((2, 3))
        if values.ndim != 2 or len(values) != self._rows:
            raise UserError(
                f"{self.output} of {self.path} is {list(np.shape(found))} for {self._rows} images; "
                "name an output [batch, K], or maps [batch, K, height, width]."
            )
        if not np.isfinite(values).all():
            raise UserError(
                f"{self.path} gives numbers that are not finite; correct mean and std in the "
                "description of its input."
            )
        return values[: len(rows)]

    def _prepared(self, images: np.ndarray) -> np.ndarray:
        """Images as the network takes them."""
        images = self._resized(images)
        if self.described.channels == "grey":
            images = np.tensordot(images, np.array(GREY, np.float32), (1, 0))[:, None]
        elif self.described.channels == "bgr":
            images = images[:, ::-1]
        mean, std = (
            np.array(numbers, np.float32)[:, None, None]
            for numbers in (self.described.mean, self.described.std)
        )
        with np.errstate(over="ignore"):  # a network's answer to infinity is not finite either
            images = (images - mean) / std
        if self._channels_last:
            images = images.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images, self._type)

    def _resized(self, images: np.ndarray) -> np.ndarray:
        size = self.described.input_size
        height, width = images.shape[2:]
        if (height, width) == (size, size):
            return images
        # An axis after the other, as Pillow does; products of one image each do not depend on how
        # many there are.
        return self._matrix(height, size) @ (images @ self._matrix(width, size).T)

    def _matrix(self, old: int, new: int) -> np.ndarray:
        if (old, new) not in self._matrices:
            from PIL import Image

            how = Image.Resampling[self.described.resizing.upper()]
            self._matrices[old, new] = matrix(old, new, how)
        return self._matrices[old, new]

    def settings(self) -> dict[str, Any]:
        """The network as JSON values, by its name and its SHA-256."""
        entry = file_entry(self.path)
        return {
            "file": self.path.name,
            "sha256": entry["sha256"],
            "output": self.output,
            **self.described.settings(),
        }


def _fits(shape: list[Any], wanted: tuple[int, ...]) -> bool:
    """Whether images [N, *wanted] have `shape`, in which names are free sizes."""
    return len(shape) == 4 and all(
        not isinstance(found, int) or found == size
        for found, size in zip(shape[1:], wanted, strict=True)
    )
