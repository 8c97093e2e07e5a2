"""What is measured of a run, and the networks that measure it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.face_template import ARCFACE
from synfer_rt.data.datasets import Dataset
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.jobs.aligning import aligner_to, warn_of_unaligned
from synfer_rt.jobs.evaluation.independence import Parts, hashes_of
from synfer_rt.jobs.evaluation.networks import (
    FEATURES,
    IDENTITY,
    INTENSITIES,
    SCORES,
    AUReader,
    Judge,
    Opener,
    own_au_reader,
    own_features,
    units_of,
)
from synfer_rt.networks.image_network import ImageNetwork
from synfer_rt.paths import Location
from synfer_rt.vocabulary import label_schemes
from synfer_rt.vocabulary.scheme_files import given_scheme

_MOST_DIMENSIONS, _LEAST_SUBSET = 8192, 100


@dataclass(frozen=True)
class EvaluationJob:
    """What is measured of a run, and with which networks.

    With `align` the faces of `real` are aligned as those of the run (see aligning.py). `features`
    and `identity` are a file and its description, `judges` files with their label scheme and
    description, `au_reader` a file with its action units and description. `subset` images at most,
    drawn by `seed`, are compared pair by pair. Raises UserError for values that do not fit.
    """

    real: Dataset | None = None
    align: bool = False
    face: str | None = None
    face_detector: Location | None = None
    features: tuple[Any, str] | None = None
    judges: Sequence[tuple[Any, str | Sequence[str], str]] = ()
    au_reader: tuple[Any, str | Sequence[str], str] | None = None
    identity: tuple[Any, str] | None = None
    person: str | None = None
    subset: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.align and self.real is None:
            raise UserError("`align` is for real images; give them as `real`, or leave it out.")
        check_parts("features", self.features, 2)
        for judge in self.judges:
            check_parts("judges", judge, 3)
        check_parts("au_reader", self.au_reader, 3)
        check_parts("identity", self.identity, 2)
        ranges.whole("subset", self.subset, _LEAST_SUBSET, None)
        ranges.whole("seed", self.seed)


def check_parts(name: str, given: Any, count: int) -> None:
    """Raise UserError unless `given` is None, or a file with the texts that describe it."""
    if given is None:
        return
    parts = list(cast("Sequence[Any]", given)) if isinstance(given, tuple | list) else list[Any]()
    if len(parts) != count or not isinstance(parts[-1], str):
        what = "(file, description)" if count == 2 else "(file, names, description)"
        each = "a list of " if name == "judges" else ""
        raise UserError(f"`{name}` must be {each}{what}, got {given!r}.")


@dataclass(frozen=True)
class Networks:
    """The networks of an evaluation. Judges and AU reader had no part in the run."""

    features: ImageNetwork | None
    judges: tuple[Judge, ...]
    au_reader: AUReader | None
    identity: ImageNetwork | None

    @property
    def judge_names(self) -> list[str]:
        """The names of the judges' files; of those with one name, the later ones have a number."""
        names: list[str] = []
        for judge in self.judges:
            stem, number = judge.network.path.stem, 1
            name = stem
            while name in names:
                number += 1
                name = f"{stem}-{number}"
            names.append(name)
        return names

    def settings(self, parts: Parts | None) -> dict[str, Any]:
        """The networks as JSON values, with the engines whose weights they share."""

        def of(network: ImageNetwork | None) -> dict[str, Any] | None:
            if network is None:
                return None
            shares = None if parts is None else parts.shares(network)
            return {**network.settings(), "shares_weights_with": shares}

        reader = self.au_reader
        return {
            "features": of(self.features),
            "judges": [of(judge.network) for judge in self.judges],
            "au_reader": None if reader is None else of(reader.network),
            "identity": of(self.identity),
        }


def maker_of(settings: Mapping[str, Any], given: Bundle | Path | str | None) -> Bundle | None:
    """The bundle that made a run: the one given, or the shipped one if it did.

    Raises UserError if the one given did not.
    """
    bundle = given if isinstance(given, Bundle) else open_bundle(given)
    if settings.get("bundle") in hashes_of(bundle):
        return bundle
    if given is None:
        return None
    raise UserError(
        f"The run was made by another bundle than {bundle.name} in {bundle.path}; give the one "
        "that made it as `bundle`."
    )


def aligner_of(job: EvaluationJob, maker: Bundle | None) -> Aligner | None:
    """What aligns the real images as those of the run that `maker` made; None without `align`.

    Warns if they are not aligned, but need it. Raises UserError where `maker` is not known, and as
    `aligner_for`.
    """
    if job.align and maker is None:
        raise UserError(
            "The run was not made by the bundle that ships with synfer-rt, so where its faces lie "
            "is not known; give the bundle that made it as `bundle`."
        )
    template = ARCFACE if maker is None else maker.face_template
    aligner = aligner_to(template, job.align, job.face, job.face_detector)
    if aligner is None and maker is not None and job.real is not None:
        warn_of_unaligned(job.real.items, maker)
    return aligner


def networks_of(
    job: EvaluationJob,
    maker: Bundle | None,
    parts: Parts | None,
    some: np.ndarray,
    opener: Opener,
    classes: Sequence[str],
) -> Networks:
    """The networks of `job`, and those of the bundle that made the run where it names none.

    `some` are images float32 [n, 3, H, W] of the run, on which judges are told from annotators, and
    `classes` those of the run, which judges are mapped to if their scheme has a mapping.
    Raises UserError for one that cannot be used, that had a part in the run, or that lacks what it
    would be compared with.
    """
    if parts is None and (job.judges or job.au_reader):
        raise UserError(
            "The run was not made by the bundle that ships with synfer-rt, so whether a judge had "
            "a part in it is not known; give the bundle that made it as `bundle`."
        )
    judges: list[Judge] = []
    for file, scheme, text in job.judges:
        network = opener.described(file, text, "judges", SCORES)
        given, target = given_scheme(scheme, "judges"), label_schemes.listed(classes)
        judge = Judge(network, given.text, given.mapped_to(target), target)
        judge.check(some)
        if parts is not None:
            parts.refuse_judge(judge, some, opener)
        judges.append(judge)
    if job.au_reader is not None:
        file, units, text = job.au_reader
        network = opener.described(file, text, "au_reader", INTENSITIES)
        if parts is not None:
            parts.refuse(network, "the `au_reader`")
        reader = AUReader(network, units_of(units))
    else:
        reader = None if maker is None else own_au_reader(maker, opener)
        if reader is not None and parts is not None and parts.part_of(reader.network):
            reader = None
    features = None
    if job.features is not None:
        features = _small(opener.described(*job.features, "features", FEATURES))
    elif maker is not None:
        features = own_features(maker, opener)
    if features is None and job.real is not None:
        raise UserError(
            "The bundle has no network whose features can be compared; give one as `features`."
        )
    identity = None
    if job.identity is not None:
        if job.real is None:
            raise UserError("`identity` compares with real images; give them as `real`.")
        identity = _small(opener.described(*job.identity, "identity", IDENTITY))
    if job.person is not None and identity is None:
        raise UserError("`person` is for `identity`; give a face network, or leave it out.")
    return Networks(features, tuple(judges), reader, identity)


def _small(network: ImageNetwork) -> ImageNetwork:
    """The network. Raises UserError if its output is too long for a covariance matrix."""
    if network.size > _MOST_DIMENSIONS:
        raise UserError(
            f"{network.output} of {network.path} has {network.size} numbers an image, and at most "
            f"{_MOST_DIMENSIONS} can be compared; name a later value, or maps, which are averaged."
        )
    return network
