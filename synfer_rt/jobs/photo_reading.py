"""The photos that a run starts from, and what it takes from their dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import Item, Skipped, read_dataset, refuse_inside
from synfer_rt.data.datasets.archives import is_archive
from synfer_rt.data.datasets.items import IMAGES, load
from synfer_rt.data.datasets.tables.boxes import whole
from synfer_rt.data.datasets.tables.parquet_file import SUFFIX as PARQUET
from synfer_rt.data.datasets.tables.table import CERTAIN
from synfer_rt.data.images import find_images
from synfer_rt.errors import UserError, nearest
from synfer_rt.faces.alignment import Aligner
from synfer_rt.jobs.aligning import OF_ALIGNING, aligner_of
from synfer_rt.jobs.known_faces import keeping_faces, remembering
from synfer_rt.jobs.originals import refuse_splits
from synfer_rt.judging.annotators import AU_READER
from synfer_rt.paths import local
from synfer_rt.sampling import inversion
from synfer_rt.sampling.apportionment import turns
from synfer_rt.sampling.inversion import Photos
from synfer_rt.sampling.photo_facts import AUS_FROM, PHOTO, PROTOTYPE, READER, PhotoFacts
from synfer_rt.vocabulary import facs
from synfer_rt.vocabulary.scheme_files import given_scheme

READ_AS = {
    "input_format": "photo_format",
    "label_scheme": "photo_label_scheme",
    "split": "photo_split",
}
"""Settings that say how the photos' dataset is read, with the names that run.json has for them."""
_OF_PHOTOS = ("keep_label", "aus_from", "inversion", "align", *OF_ALIGNING, *READ_AS)


@dataclass(frozen=True)
class _Wanted:
    """What a run takes from its photos."""

    keep_label: bool
    aus_from: str

    def problem(self, item: Item, bundle: Bundle) -> str | None:
        """Why a photo lacks it; None if it has all."""
        if self.keep_label and item.label is None:
            return item.problem or "it has no label"
        if self.keep_label and item.label not in bundle.classes:
            return f"{bundle.name} does not know the class {item.label}"
        if self.aus_from != PHOTO:
            return None
        aus = item.description.aus
        if aus is None:
            return "no table says its action units"
        if isinstance(aus, str):
            return aus
        known = facs.as_known(dict.fromkeys(aus, 1.0), bundle.au_names)
        return None if known else f"{bundle.name} knows none of its action units"


def read_photos(
    given: Mapping[str, Any], bundle: Bundle, out: Path | None
) -> tuple[Photos | None, PhotoFacts | None]:
    """The photos that the settings name, and what the run takes from a dataset of them.

    Image files in a folder are a dataset only if a setting asks for what datasets have. Raises
    UserError for settings that do not fit, and where no photo can be used.
    """
    if given.get("layout_from") is None:
        alone = next((name for name in _OF_PHOTOS if given.get(name) not in (None, False)), None)
        if alone is not None:
            raise UserError(f"`{alone}` is for photos; add `layout_from`, or leave it out.")
        return None, None
    inversion.check_encoder(bundle)
    path = local(given["layout_from"], "layout_from")
    if out is not None:
        refuse_inside(out, [path])
    wanted = _wanted(given, bundle)
    aligner = remembering(aligner_of(given, bundle), out)
    options = {name: given[name] for name in READ_AS if given.get(name) is not None}
    asked = wanted.keep_label or wanted.aus_from != PROTOTYPE or options
    with keeping_faces(aligner, out):
        if not asked and _are_images(path):
            return inversion.read_photos(path, bundle.image_size, aligner), None
        return _of_dataset(path.absolute(), wanted, options, bundle, aligner)


def read_as(settings: Mapping[str, Any]) -> dict[str, str]:
    """How run.json says that the photos' dataset was read, by the names of settings."""
    return {name: settings[key] for name, key in READ_AS.items() if settings.get(key) is not None}


def _wanted(given: Mapping[str, Any], bundle: Bundle) -> _Wanted:
    keep = ranges.flag("keep_label", given.get("keep_label") or False)
    aus_from = given.get("aus_from", PROTOTYPE)
    if not isinstance(aus_from, str) or aus_from not in AUS_FROM:
        near = nearest(str(aus_from), AUS_FROM)
        raise UserError(
            f"`aus_from` must be one of {', '.join(AUS_FROM)}, got {aus_from!r}; the nearest is "
            f"{near}."
        )
    if given.get("aus") and "aus_from" in given:
        raise UserError("`aus` and `aus_from` exclude each other; leave one out.")
    if aus_from != PROTOTYPE and not bundle.au_names:
        raise UserError(
            f"{bundle.name} is a model without action units; leave out `aus_from`, or choose "
            "another `bundle`."
        )
    if aus_from == READER and AU_READER not in bundle.engines:
        raise UserError(
            f"{bundle.name} has no AU reader; build it with one, or take the action units from the "
            'photos\' table with `aus_from="photo"`.'
        )
    if keep and given.get("labels", "all") != "all":
        raise UserError("`labels` and `keep_label` exclude each other; leave one out.")
    if keep and given.get("count_accepted"):
        raise UserError(
            "`count_accepted` requests the labels that are missing, and `keep_label` those of the "
            "photos; leave one out."
        )
    return _Wanted(keep, aus_from)


def _are_images(path: Path) -> bool:
    """Whether image files lie at or below `path`, not tables or archives that hold images."""
    files = find_images(path)
    if any(file.suffix.lower() in IMAGES for file in files):
        return True
    return not any(file.suffix.lower() in (*CERTAIN, PARQUET) or is_archive(file) for file in files)


def _of_dataset(
    path: Path,
    wanted: _Wanted,
    options: Mapping[str, Any],
    bundle: Bundle,
    aligner: Aligner | None,
) -> tuple[Photos, PhotoFacts]:
    dataset = read_dataset(
        path,
        options.get("input_format", "auto"),
        options.get("label_scheme"),
        options.get("split"),
        bundle.label_scheme,
        describes=True,
    )
    refuse_splits(dataset, "start from")
    with ThreadPoolExecutor(inversion.readers(), "read") as pool:
        look = partial(_looked_at, wanted=wanted, bundle=bundle, aligner=aligner)
        found = list(pool.map(look, dataset.items))
    unusable = [*(one for one in found if isinstance(one, Skipped)), *dataset.skipped]
    good = [
        (item, one)
        for item, one in zip(dataset.items, found, strict=True)
        if not isinstance(one, Skipped)
    ]
    if not good:
        first = unusable[0]
        raise UserError(
            f"{path} has no photo that can be used ({first.name}: {first.reason}); see "
            "`input_format`, `label_scheme` and `aus_from`."
        )
    if wanted.keep_label:
        good = _mixed(good)
    items = tuple(item for item, _ in good)
    photos = Photos(
        bundle.image_size,
        tuple(item.file for item in items),
        tuple(item.name for item in items),
        tuple(sha256 for _, sha256 in good),
        _by_name(unusable),
        items,
        {READ_AS[name]: _text(name, value) for name, value in options.items()},
        aligner,
    )
    return photos, _facts(items, wanted, bundle)


def _text(name: str, value: object) -> str:
    """How run.json says how the photos are read."""
    return given_scheme(value).text if name == "label_scheme" else str(value)


def _looked_at(
    item: Item, wanted: _Wanted, bundle: Bundle, aligner: Aligner | None
) -> str | Skipped:
    """The SHA-256 of a photo's file, or why the photo cannot be used."""
    if (problem := wanted.problem(item, bundle)) is not None:
        return Skipped(item.name, problem)
    image = load(item, bundle.image_size, aligner)
    if isinstance(image, str):
        return Skipped(item.name, image)
    return hashlib.sha256(whole(item)()).hexdigest()


def _by_name(skipped: Sequence[Skipped]) -> dict[str, str]:
    """All reasons why a photo or file is not used, by its name."""
    reasons: dict[str, str] = {}
    for entry in skipped:
        before = reasons.get(entry.name)
        reasons[entry.name] = entry.reason if before is None else f"{before}; {entry.reason}"
    return reasons


def _mixed(good: Sequence[tuple[Item, str]]) -> list[tuple[Item, str]]:
    """The photos in an order in which every beginning has the shares of their labels."""
    by_label: dict[str, list[tuple[Item, str]]] = {}
    for item, sha256 in good:
        by_label.setdefault(item.label or "", []).append((item, sha256))
    members = [iter(those) for those in by_label.values()]
    order: list[int] = turns(list(map(len, by_label.values()))).tolist()
    return [next(members[turn]) for turn in order]


def _facts(items: Sequence[Item], wanted: _Wanted, bundle: Bundle) -> PhotoFacts:
    labels: list[str] = [item.label or "" for item in items] if wanted.keep_label else []
    captions = [item.description.caption for item in items] if wanted.keep_label else []
    aus = [_intensities(item, bundle) for item in items] if wanted.aus_from == PHOTO else []
    return PhotoFacts(
        tuple(labels), tuple(captions) if any(captions) else (), tuple(aus), wanted.aus_from
    )


def _intensities(item: Item, bundle: Bundle) -> Mapping[str, float]:
    """What the table says of a photo's action units, by the model's names."""
    aus = item.description.aus
    assert isinstance(aus, Mapping)
    names = bundle.au_names
    return aus if aus.keys() <= set(names) else facs.as_known(aus, names)
