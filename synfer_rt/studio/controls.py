"""Which controls the page has for a bundle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.sizes import format_size
from synfer_rt.faces import weights
from synfer_rt.judging.annotators import AU_READER, ENCODER
from synfer_rt.sampling.guidance import FORMS, engine_name
from synfer_rt.sampling.inversion import STRENGTH
from synfer_rt.studio.photos import MOST_BYTES
from synfer_rt.vocabulary.facs import ACTION_UNITS, REGIONS

OTHER = "other"
NEUTRAL = "neutral"
_UNIT = re.compile(r"AU0*([0-9]+)\Z", re.IGNORECASE)


def controls(bundle: Bundle, backend: str) -> dict[str, Any]:
    """What the page shows of a bundle that runs on `backend`, as JSON values."""
    best, first = bundle.defaults, bundle.defaults_of(bundle.defaults.quality)
    return {
        "model": f"{bundle.name} {bundle.version}",
        "description": bundle.description,
        "backend": backend,
        "size": list(bundle.image_size),
        "size_text": format_size(bundle.image_size),
        "classes": list(bundle.classes),
        "neutral": NEUTRAL if NEUTRAL in bundle.classes else None,
        "regions": regions(bundle.au_names),
        "qualities": list(bundle.qualities),
        "quality": bundle.defaults.quality,
        "guidance": first.guidance,
        "negative_prompt": not bundle.guidance_embedding,
        "forms": [form for form in FORMS if engine_name(form) in bundle.engines],
        "au_scale": best.au_scale,
        "layouts": bundle.layout_count,
        "layout": best.layout,
        "layout_strength": best.layout_strength,
        "photo_strength": STRENGTH,
        "photos": ENCODER in bundle.engines,
        "photo_bytes": MOST_BYTES,
        "aligns": weights.installed() is not None,
        "annotators": [head.annotator for _, head in bundle.heads],
        "annotators_know": bundle.annotators_know,
        "reads_aus": AU_READER in bundle.engines,
    }


def regions(names: Sequence[str]) -> list[dict[str, Any]]:
    """The units of a vocabulary by region of the face, each with its sides if both have names.

    A unit is {"name", "text", "sides"}: its FACS name as `text`, and as `sides` the names of its
    left and right or None. Units outside FACS's numbers are in the region OTHER, under their names.
    """
    known = set(names)
    units: dict[str, list[dict[str, Any]]] = {region: [] for region in (*REGIONS, OTHER)}
    shown: set[str] = set()
    for name in names:
        found = _UNIT.match(name)
        sides = [f"{side}{found[1]}" for side in "LR"] if found else []
        both = sides if set(sides) <= known and sides else None
        shown.update(both or ())
        if name not in shown:
            number = int(found[1]) if found else -1
            region = next((r for r, numbers in REGIONS.items() if number in numbers), OTHER)
            text = ACTION_UNITS.get(name.upper(), "")
            units[region].append({"name": name, "text": text, "sides": both})
    return [{"name": region, "units": those} for region, those in units.items() if those]
