"""The word-level tokenizer of synfer-mini: each word of `vocabulary.prompts` is one token."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from synfer_rt.vocabulary import prompts

MAX_LENGTH = 48
PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"


def build() -> Tokenizer:
    """Lower case, split at spaces and punctuation; pads and truncates to MAX_LENGTH.

    The end token has the highest id, because CLIP's text encoder takes its pooled output there.
    """
    words = dict.fromkeys(word.lower() for word in prompts.words())
    splitter = pre_tokenizers.Whitespace()
    pieces = dict.fromkeys(p for word in words for p, _ in splitter.pre_tokenize_str(word))
    tokens = [PAD, UNKNOWN, *pieces, BOS, EOS]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, ids[BOS]), (EOS, ids[EOS])]
    )
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(length=MAX_LENGTH, pad_id=ids[PAD], pad_token=PAD)
    return tokenizer
