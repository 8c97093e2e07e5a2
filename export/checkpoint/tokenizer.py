"""A checkpoint's tokenizer as one tokenizer.json, with padding, truncation and special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from synfer_rt.bundle.textual_inversion import words_of_vectors, write_out
from synfer_rt.errors import UserError

PROBES = (
    "",
    "a photo of a young woman with a happy face, long black hair",
    "A Close-Up of an elderly man,   DIM light!",
    "naïve café: it's 42% off\nnew line",
    "a portrait of " + "a very, " * 60 + "long face",
)
"""Texts that must get the same ids before and after: empty, plain, odd, too long."""


def export_tokenizer(tokenizer: Any, positions: int, path: Path) -> int:
    """Write `tokenizer`, a fast one of transformers; returns the number of ids of every text.

    That number is the tokenizer's own length, at most the text encoder's `positions`. Raises
    UserError when the written file gives other ids than `tokenizer` for one of PROBES, or for a
    word of several learnt vectors.
    """
    max_length = min(int(tokenizer.model_max_length), positions)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    backend.enable_padding(
        direction=tokenizer.padding_side,
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
        length=max_length,
    )
    backend.save(str(path))
    saved = Tokenizer.from_file(str(path))
    learnt = words_of_vectors(saved)
    said = [*PROBES, *(f"a face of {words[0]}, smiling" for words in learnt.values())]
    full = [*PROBES, *(f"a face of {' '.join(words)}, smiling" for words in learnt.values())]
    expected = tokenizer(full, padding="max_length", truncation=True, max_length=max_length)
    written = [e.ids for e in saved.encode_batch([write_out(saved, s, learnt) for s in said])]
    for text, wanted, found in zip(said, expected["input_ids"], written, strict=True):
        if found != wanted:
            raise UserError(
                f"The tokenizer of this checkpoint cannot be written as tokenizer.json: "
                f"{text[:40]!r} gives other ids; report the checkpoint as an issue."
            )
    return max_length
