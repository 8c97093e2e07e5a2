"""The data in a page: blocks of Base64 in elements that a browser does not run.

Files, such as thumbnails, lie one after the other in blocks of a fixed number of them, each file in
Base64 of its own. A page cuts out the one that it shows, and nothing else is decoded. Until the
page is written the blocks lie in a temporary file, so memory does not grow with them.
"""

from __future__ import annotations

import base64
import gzip
import tempfile
from array import array
from collections.abc import Iterator
from typing import Self

_CHUNK = 1 << 20


def element(name: str, text: str) -> str:
    """A block of a page: `text`, which is Base64, in an element with the id `name`."""
    return f'<script type="text/plain" id="{name}">{text}</script>\n'


def packed(data: bytes) -> str:
    """Bytes as Base64 of their gzip, which is the same every time."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


class Files:
    """Files of one kind, in blocks of `per_block`; `lengths` are those of their Base64."""

    def __init__(self, name: str, per_block: int) -> None:
        self.name, self.per_block = name, per_block
        self.lengths, self._starts = array("I"), array("Q")
        self.size = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- `close` closes it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, content: bytes) -> None:
        """Add the next file; no bytes are no file."""
        text = base64.b64encode(content)
        if len(self.lengths) % self.per_block == 0:
            number = len(self.lengths) // self.per_block
            begin = f'<script type="text/plain" id="{self.name}-{number}">'
            self._write(f"{'</script>' if number else ''}\n{begin}".encode())
        self.lengths.append(len(text))
        self._starts.append(self.size)
        self._write(text)

    def base64(self, number: int) -> str:
        """The Base64 of a file that was added."""
        self._file.seek(self._starts[number])
        text = self._file.read(self.lengths[number]).decode()
        self._file.seek(self.size)
        return text

    def discard(self) -> None:
        """Forget all files."""
        self._file.seek(0)
        self._file.truncate()
        self.lengths, self._starts, self.size = array("I"), array("Q"), 0

    def html(self) -> Iterator[bytes]:
        """The elements of all blocks, in pieces."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            yield chunk
        if self.lengths:
            yield b"</script>\n"

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
