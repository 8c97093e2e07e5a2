"""Action-unit prototypes of the expression classes, and how a request draws from them.

The variants are our own, based on EMFACS (Ekman and Friesen) as summarised by Matsumoto et al.,
"Facial expressions of emotion" (2008): each class has a few variants with required and optional
units. Some deviate from EMFACS: the shouting anger has AU 16 and need not tighten the lips, one
fear lacks AU 2 (as in Du et al., PNAS 2014), and a mouth that AU 26 or 27 opens has little of AU
25, although a reader of photographs would see it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from synfer_rt.vocabulary.facs import OPENGRAPHAU_41

Range = tuple[float, float]


@dataclass(frozen=True)
class Variant:
    """One way to show an expression; action units by FACS number.

    required: unit -> range of its intensity. optional: unit -> (probability, range). one_sided:
    units that act on one side of the face, all on the same side. AU 43 (eye closure) is not in
    OpenGraphAU's vocabulary: renders show it, AU vectors do not name it.
    """

    required: Mapping[int, Range]
    optional: Mapping[int, tuple[float, Range]] = field(
        default_factory=dict[int, tuple[float, Range]]
    )
    one_sided: frozenset[int] = frozenset()


_KNOWN = frozenset(OPENGRAPHAU_41)
_MILD = (0.25, 0.8)
_DROOP = (0.1, 0.4)

PROTOTYPES: dict[str, tuple[Variant, ...]] = {
    "neutral": (Variant({}),),
    "happy": (
        Variant({6: (0.5, 1), 12: (0.65, 1)}, {25: (0.75, (0.4, 1)), 26: (0.35, (0.2, 0.7))}),
        Variant({6: (0.3, 0.9), 12: (0.7, 1), 25: (0.5, 1)}, {26: (0.3, (0.2, 0.6))}),
    ),
    "sad": (
        Variant(
            {1: (0.65, 1), 4: (0.35, 0.75), 15: (0.65, 1)},
            {17: (0.5, _MILD), 43: (0.5, _DROOP), 25: (0.1, (0.1, 0.4))},
        ),
        Variant(
            {1: (0.65, 1), 15: (0.6, 1), 17: (0.4, 0.9)},
            {4: (0.6, (0.2, 0.6)), 43: (0.4, _DROOP), 7: (0.2, (0.2, 0.5))},
        ),
    ),
    "surprise": (
        Variant({1: (0.75, 1), 2: (0.75, 1), 5: (0.65, 1), 26: (0.75, 1), 25: (0.1, 0.45)}),
        Variant({1: (0.75, 1), 2: (0.75, 1), 5: (0.7, 1), 27: (0.55, 0.95)}),
    ),
    "fear": (
        Variant(
            {1: (0.75, 1), 2: (0.3, 0.7), 4: (0.45, 0.8), 5: (0.75, 1), 20: (0.7, 1), 25: (0.6, 1)},
            {26: (0.5, (0.2, 0.6)), 7: (0.3, (0.2, 0.5))},
        ),
        Variant(
            {1: (0.8, 1), 4: (0.4, 0.7), 5: (0.75, 1), 20: (0.7, 1), 26: (0.3, 0.7), 25: (0.5, 1)},
            {16: (0.4, _MILD)},
        ),
    ),
    "disgust": (
        Variant(
            {9: (0.75, 1), 10: (0.35, 0.8)},
            {17: (0.4, _MILD), 4: (0.35, (0.2, 0.5)), 7: (0.6, _MILD), 15: (0.3, _MILD)},
        ),
        Variant(
            {9: (0.7, 1), 10: (0.7, 1), 25: (0.3, 0.8)},
            {16: (0.4, _MILD), 4: (0.3, (0.2, 0.5)), 6: (0.3, _MILD), 7: (0.5, _MILD)},
        ),
    ),
    "anger": (
        Variant(
            {4: (0.85, 1), 5: (0.35, 0.8), 7: (0.45, 0.9), 23: (0.6, 1)},
            {24: (0.4, _MILD), 17: (0.35, _MILD)},
        ),
        Variant(
            {4: (0.85, 1), 7: (0.45, 0.9), 24: (0.65, 1), 17: (0.3, 0.8)},
            {5: (0.6, (0.3, 0.7))},
        ),
        Variant(
            {4: (0.85, 1), 5: (0.5, 0.9), 7: (0.4, 0.8), 10: (0.5, 0.9)}
            | {16: (0.6, 1), 25: (0.7, 1)},
            {26: (0.7, (0.3, 0.8)), 9: (0.25, (0.2, 0.5)), 22: (0.3, (0.2, 0.5))},
        ),
    ),
    "contempt": (
        Variant(
            {14: (0.7, 1)},
            {12: (0.7, (0.3, 0.6)), 10: (0.2, (0.2, 0.5)), 43: (0.2, _DROOP), 2: (0.2, _MILD)},
            frozenset({14, 12, 10, 2}),
        ),
        Variant(
            {12: (0.45, 0.75), 14: (0.65, 1)},
            {24: (0.2, (0.2, 0.5)), 43: (0.2, _DROOP)},
            frozenset({12, 14}),
        ),
    ),
}

DRAWS = 20
"""The number of uniform numbers that `draw` and `draw_aus` take."""


def draw(label: str, uniforms: Sequence[float]) -> dict[int, tuple[float, float]]:
    """{unit: (left, right)} intensities of one face that shows `label`.

    A class without a prototype has none. `uniforms` are DRAWS numbers in [0, 1). Left is the
    subject's left, as in FACS.
    """
    u = iter(uniforms)

    def between(bounds: Range) -> float:
        return bounds[0] + (bounds[1] - bounds[0]) * next(u)

    variants = PROTOTYPES.get(label, PROTOTYPES["neutral"])
    variant = variants[int(next(u) * len(variants))]
    left, weakness = next(u) < 0.5, 0.15 * next(u)
    strengths = {unit: between(bounds) for unit, bounds in variant.required.items()}
    for unit, (probability, bounds) in variant.optional.items():
        if next(u) < probability:
            strengths[unit] = between(bounds)
    aus = {unit: (strength, strength) for unit, strength in strengths.items()}
    for unit in variant.one_sided & strengths.keys():
        strong, weak = strengths[unit], strengths[unit] * weakness
        aus[unit] = (strong, weak) if left else (weak, strong)
    return aus


def draw_aus(label: str, uniforms: Sequence[float]) -> dict[str, float]:
    """`draw` by OpenGraphAU names, rounded to two decimals; sides are named where they differ.

    Units that the vocabulary lacks (AU 43) are left out.
    """
    aus: dict[str, float] = {}
    for unit, (left, right) in sorted(draw(label, uniforms).items()):
        names = (f"L{unit}", f"R{unit}") if left != right else (f"AU{unit}",)
        for name, strength in zip(names, (left, right), strict=False):
            if name in _KNOWN:
                aus[name] = round(float(strength), 2)
    return aus
