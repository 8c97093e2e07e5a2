"""Textual inversion: words of a prompt that stand for several learnt vectors.

Where a concept has several vectors, diffusers saves each as a token of its own, `<cat>`, `<cat>_1`,
`<cat>_2`, and writes all of them wherever a prompt says `<cat>` (An Image is Worth One Word, arXiv
2208.01618, calls such words pseudo-words).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from synfer_rt.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def words_of_vectors(tokenizer: Tokenizer) -> dict[int, tuple[str, ...]]:
    """The tokens of each concept of several vectors, by the id of the first.

    A concept's tokens are added tokens; the second ends in `_1`, the third in `_2`, and so on.
    """
    added = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()}
    found: dict[int, tuple[str, ...]] = {}
    for word, number in added.items():
        words = [word]
        while f"{word}_{len(words)}" in added:
            words.append(f"{word}_{len(words)}")
        if len(words) > 1:
            found[number] = tuple(words)
    return found


def write_out(tokenizer: Tokenizer, text: str, words: Mapping[int, tuple[str, ...]]) -> str:
    """`text` with every concept's first token followed by its others.

    `words` is the result of `words_of_vectors`. Tokens are where the tokenizer finds them, in upper
    or lower case, longer ones first. Raises UserError for a text that also contains one of the
    other tokens, since it may be written out already.
    """
    if not words:
        return text
    encoding = tokenizer.encode(text, add_special_tokens=False)
    tokens = [
        (number, *span)
        for part in (encoding, *encoding.overflowing)
        for number, span in zip(part.ids, part.offsets, strict=True)
        if span[0] < span[1]
    ]
    numbers = {number for number, _, _ in tokens}
    for first in numbers & words.keys():
        for other in words[first][1:]:
            if tokenizer.token_to_id(other) in numbers:
                raise UserError(
                    f"The prompt {text[:60]!r} contains {other} beside {words[first][0]}; write "
                    f"{words[first][0]} alone, which stands for its {len(words[first])} vectors."
                )
    result, done = "", 0
    for number, start, end in sorted(tokens, key=lambda token: token[1]):
        if number in words and start >= done:
            result += text[done:start] + " ".join(words[number])
            done = end
    return result + text[done:]
