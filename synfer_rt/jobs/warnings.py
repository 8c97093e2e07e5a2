"""What a job warns of before it begins: results that a user may not expect."""

from __future__ import annotations

import logging
import reprlib
from collections import Counter
from collections.abc import Sequence

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle

LOG = logging.getLogger(__name__)
_CAPTIONS = 1000
"""Captions that are looked at, at most."""
_WORDS = 10
"""Unknown words of captions that are told, at most."""


def warn_of_other_images(bundle: Bundle) -> None:
    """Warn that the annotators know only some kind of images, if the bundle says so.

    For jobs on images that come from elsewhere.
    """
    if sentence := other_images(bundle):
        LOG.warning(sentence)


def other_images(bundle: Bundle) -> str | None:
    """The sentence of `warn_of_other_images`; None if the bundle names no kind of images."""
    if not bundle.annotators or not bundle.annotators_know:
        return None
    return (
        f"The annotators of {bundle.name} know {bundle.annotators_know} only: do not rely on what "
        "they say of other images, such as photographs."
    )


def warn_of_the_cpu(engines: LoadedEngines) -> None:
    """Warn of loaded engines that a GPU's backend runs in part on the CPU."""
    parts = {name: place for name, place in engines.placements().items() if place.fallen}
    if parts:
        told = ", ".join(
            f"{place.fallen} of {sum(place.nodes.values())} nodes of {name}"
            for name, place in parts.items()
        )
        LOG.warning(
            f"{engines.backend} leaves {told} to the CPU, so each call waits for copies. CUDA "
            "engines have no such nodes; `synfer-rt build-engines --target cuda` makes them."
        )


def warn_of_unread(bundle: Bundle, argument: str, *texts: str) -> None:
    """Warn of what the model does not read of texts: an end, and words that it does not know."""
    for sentence in unread(bundle, argument, *texts):
        LOG.warning(sentence)


def unread(bundle: Bundle, argument: str, *texts: str) -> list[str]:
    """The sentences of `warn_of_unread`; none if the model reads all of the texts."""
    found = list(map(bundle.unread, texts))
    words = dict.fromkeys(word for _, unknown in found for word in unknown)
    sentences: list[str] = []
    if end := next((end for end, _ in found if end), ""):
        sentences.append(
            f"`{argument}` is longer than the {bundle.max_length} tokens that {bundle.name} reads; "
            f"its end is not read: {end.strip()!r}"
        )
    if words:
        named = ", ".join(words)
        sentences.append(f"{bundle.name} does not know these words of `{argument}`: {named}")
    return sentences


def warn_of_unread_captions(bundle: Bundle, captions: Sequence[str]) -> None:
    """Warn of what the model does not read of photos' captions: of a part of them, if many."""
    some = captions[:: -(-len(captions) // _CAPTIONS) or 1]
    found = list(map(bundle.unread, some))
    ends = [end.strip() for end, _ in found if end]
    words = Counter(word for _, unknown in found for word in {*unknown})
    if ends:
        LOG.warning(
            f"{len(ends)} of {len(some)} captions that were looked at are longer than the "
            f"{bundle.max_length} tokens that {bundle.name} reads; their ends are not read, such "
            f"as {reprlib.repr(ends[0])}"
        )
    if words:
        told = ", ".join(word for word, _ in words.most_common(_WORDS))
        LOG.warning(
            f"{bundle.name} does not know words of the captions; the most frequent ones of "
            f"{len(some)} captions that were looked at: {told}"
        )
