"""All operators in all forms."""

from __future__ import annotations

from tests.backends.operators import elementwise, products, reductions, shapes, spatial
from tests.backends.operators.variant import Variant


def variants() -> list[Variant]:
    """All of them; no two have the same id."""
    kinds = (
        *(reductions.reductions, reductions.along_an_axis, reductions.normalisations),
        *(spatial.pools, spatial.convolutions, spatial.resizes, spatial.sampling),
        *(elementwise.functions, elementwise.arithmetic, products.products),
        *(shapes.shapes, shapes.pads),
    )
    return [variant for kind in kinds for variant in kind()]
