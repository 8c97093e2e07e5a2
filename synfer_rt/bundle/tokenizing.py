"""Prompts as token ids, and the parts of a prompt that a model does not read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synfer_rt.bundle.files import remedy
from synfer_rt.bundle.textual_inversion import words_of_vectors, write_out
from synfer_rt.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Encoding

_MOST_REMEMBERED = 4096
"""Texts whose tokens are kept."""


class PromptTokenizer:
    """The tokenizer of a bundle: its file `tokenizer.json`, which pads, truncates and frames.

    Words that stand for several learnt vectors become all of their tokens (textual_inversion.py).
    Raises UserError for a file that `tokenizers` cannot read.
    """

    def __init__(self, file: Path, max_length: int) -> None:
        from tokenizers import Tokenizer

        self._file, self._max_length = file, max_length
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises plain Exception
            raise UserError(f"{file} is not a tokenizer ({error}); {self._remedy()}.") from None
        self._learnt_words = words_of_vectors(self._tokenizer)
        self._read: dict[str, np.ndarray] = {}

    def ids(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids int64 [len(texts), max_length]. Raises UserError for rows of other lengths.

        Each text is read once, however often it occurs, and remembered for the next call.
        """
        if isinstance(texts, str):
            raise UserError(f"`texts` must be a list of texts, got the one text {texts!r}.")
        known = self._read
        new = [text for text in dict.fromkeys(texts) if text not in known]
        encodings = self._tokenizer.encode_batch([self._written_out(text) for text in new])
        rows = [np.array(encoding.ids, np.int64) for encoding in encodings]
        if any(len(row) != self._max_length for row in rows):
            raise UserError(
                f"{self._file} does not pad prompts to {self._max_length} tokens; {self._remedy()}."
            )
        read = known | dict(zip(new, rows, strict=True))
        self._read = read if len(read) <= _MOST_REMEMBERED else {}
        ids = np.empty((len(texts), self._max_length), np.int64)
        for row, text in zip(ids, texts, strict=True):
            row[:] = read[text]
        return ids

    def unread(self, text: str) -> tuple[str, tuple[str, ...]]:
        """What the model does not read of a text: its truncated end, and unknown words."""
        text = self._written_out(text)
        encoding = self._tokenizer.encode(text)
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        # Special tokens have empty spans.
        seen = [(token, span) for token, span in _tokens(encoding) if span[0] < span[1]]
        words = dict.fromkeys(text[a:b] for token, (a, b) in seen if token == unknown)
        cut = [span[0] for part in encoding.overflowing for _, span in _tokens(part) if any(span)]
        return text[min(cut) :] if cut else "", tuple(words)

    def _written_out(self, text: str) -> str:
        return write_out(self._tokenizer, text, self._learnt_words)

    def _remedy(self) -> str:
        return remedy(self._file.parent)


def _tokens(encoding: Encoding) -> list[tuple[str, tuple[int, int]]]:
    """Each token with its span in the text."""
    return list(zip(encoding.tokens, encoding.offsets, strict=True))
