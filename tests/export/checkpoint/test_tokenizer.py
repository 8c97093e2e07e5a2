"""tokenizer.json gives the ids of the checkpoint's own tokenizer, padded, cut and framed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import transformers
from diffusers.loaders import TextualInversionLoaderMixin
from tokenizers import Tokenizer

from synfer_rt.bundle import Bundle, write_manifest
from synfer_rt.bundle.textual_inversion import words_of_vectors, write_out
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.tokenizer import export_tokenizer

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


LEARNT = ["<cat>", "<cat>_1", "<cat>_2", "<My-Dog>", "<My-Dog>_1", "sks", "sks_1", "one", "<cat>ty"]


@pytest.fixture(scope="module")
def learnt(sd_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tokenizer]:
    """A tokenizer with words of three, two and one vectors, saved, and what is written of it."""
    folder = tmp_path_factory.mktemp("learnt")
    tokenizer = transformers.AutoTokenizer.from_pretrained(sd_checkpoint / "tokenizer")
    tokenizer.add_tokens(LEARNT)
    tokenizer.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    export_tokenizer(tokenizer, 20, folder / "written.json")
    return tokenizer, Tokenizer.from_file(str(folder / "written.json"))


@pytest.mark.parametrize(
    "prompt",
    [
        *("a face of <cat>", "<cat>", "a <cat>s face", "a<cat>b <cat><cat>", "<cat>_3", "<cat>_2"),
        *("sks, and tasks sks", "one <cat> and sks", "a <cat>ty face", "<cat>ty", "a face"),
        "very " * 30 + "<cat>",
        "a <cat> " * 12,
    ],
)
def test_a_word_of_several_vectors_is_written_out_as_by_diffusers(
    learnt: tuple[Any, Tokenizer], prompt: str
) -> None:
    tokenizer, written = learnt
    loader: Any = TextualInversionLoaderMixin()
    converted = loader.maybe_convert_prompt(prompt, tokenizer)
    options = {"padding": "max_length", "truncation": True, "max_length": 20}
    text = write_out(written, prompt, words_of_vectors(written))
    assert written.encode(text).ids == tokenizer(converted, **options)["input_ids"]


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a <CAT> face", "a <cat> <cat>_1 <cat>_2 face"),
        ("<My-Dog> or <my-dog>", "<My-Dog> <My-Dog>_1 or <My-Dog> <My-Dog>_1"),
        ("one SKS one", "one sks sks_1 one"),
    ],
)
def test_a_word_is_found_in_any_case_that_the_tokenizer_reads_it_in(
    learnt: tuple[Any, Tokenizer], prompt: str, wanted: str
) -> None:
    _, written = learnt
    assert write_out(written, prompt, words_of_vectors(written)) == wanted


@pytest.mark.parametrize("prompt", ["<cat> <cat>_1 <cat>_2", "a <cat> and <cat>_1"])
def test_a_prompt_that_names_single_vectors_beside_the_word_is_refused(
    learnt: tuple[Any, Tokenizer], prompt: str
) -> None:
    _, written = learnt
    with pytest.raises(UserError, match="write <cat> alone, which stands for its 3 vectors"):
        write_out(written, prompt, words_of_vectors(written))


def test_a_bundle_writes_them_out_in_every_prompt(
    sd_bundle: Bundle, learnt: tuple[Any, Tokenizer], tmp_path: Path
) -> None:
    _, written = learnt
    path = Path(shutil.copytree(sd_bundle.path, tmp_path / "bundle"))
    written.save(str(path / "tokenizer.json"))
    bundle = write_manifest(path, {k: v for k, v in sd_bundle.manifest.items() if k != "files"})
    rows = bundle.tokenize(["a <cat> face", "sks", "one"])
    number = written.token_to_id
    assert rows[0, 2:5].tolist() == [number(word) for word in ("<cat>", "<cat>_1", "<cat>_2")]
    assert rows[1, 1:3].tolist() == [number("sks"), number("sks_1")]
    assert rows[2, 1] == number("one") != rows[2, 2]
    unread, _ = bundle.unread("face " * 16 + "<cat>")
    assert unread == "<cat>_2"
