"""tokenizer.json gives the ids of the checkpoint's own tokenizer, padded, cut and framed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import transformers
from tokenizers import Tokenizer

from synfer_rt.errors import UserError
from synfer_rt.export.tokenizer import export_tokenizer

SENTENCES = [
    "",
    "a photo of a face",
    "A  PHOTO, of 2 men's   faces!",
    "café, naïve 😀",
    "a photo of " + "an old man " * 40,
]


@pytest.mark.parametrize("kind", ["mini", "sd"])
def test_sentences_have_the_ids_of_the_checkpoints_tokenizer(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(f"{kind}_checkpoint") / "tokenizer"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    length = export_tokenizer(tokenizer, 20, tmp_path / "tokenizer.json")
    assert length == 20
    options = {"padding": "max_length", "truncation": True, "max_length": length}
    written = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch(SENTENCES)
    assert [e.ids for e in written] == tokenizer(SENTENCES, **options)["input_ids"]


def test_clip_text_is_framed_cut_and_padded_with_the_end_token(
    sd_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(sd_checkpoint / "tokenizer")
    export_tokenizer(tokenizer, 77, tmp_path / "tokenizer.json")
    written = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert written.encode("").ids == [start] + [end] * 19
    photo = written.encode("photo").tokens
    assert photo[:3] == ["<|startoftext|>", "photo</w>", "<|endoftext|>"] and len(photo) == 20
    long = written.encode("face " * 50).ids
    assert (long[0], long[-1], len(long)) == (start, end, 20) and end not in long[1:-1]


def test_a_tokenizer_that_cannot_be_written_alike_is_refused(
    sd_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(sd_checkpoint / "tokenizer")

    class Shouts:
        """Changes the text outside of what tokenizer.json can hold."""

        def __getattr__(self, name: str):
            return getattr(tokenizer, name)

        def __call__(self, texts: list[str], **options):
            return tokenizer([text + "!" for text in texts], **options)

    with pytest.raises(UserError, match="other ids"):
        export_tokenizer(Shouts(), 20, tmp_path / "tokenizer.json")
