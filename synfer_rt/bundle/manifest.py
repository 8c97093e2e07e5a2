"""The manifest, bundle.json: its fields read and checked. docs/architecture.md lists them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import numpy as np

from synfer_rt.bundle import numbers
from synfer_rt.bundle.bundle import Bundle, Defaults, Latent
from synfer_rt.bundle.cuda import read_cuda
from synfer_rt.bundle.engine_specs import IMAGE_AXES, LATENT_AXES, EngineSpec, mismatch
from synfer_rt.bundle.face_template import read_template
from synfer_rt.bundle.files import MANIFEST, remedy
from synfer_rt.bundle.former_names import current_manifest
from synfer_rt.bundle.identity import NOT_SAMPLED, identity
from synfer_rt.bundle.plans import read_plans
from synfer_rt.bundle.qualities import BEST, FAST, read_distilled
from synfer_rt.bundle.sizes import Sizes
from synfer_rt.bundle.stamps import stamp
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, PREDICTION_TYPES, SOLVERS
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import facs, label_schemes

FORMAT = 1
_Section = TypeVar("_Section")
_UNREADABLE = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RecursionError, MemoryError),
)


@contextmanager
def naming_faults(directory: Path) -> Generator[None]:
    """Turn the errors that malformed fields raise into a UserError that names the manifest."""
    try:
        yield
    except _UNREADABLE as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise UserError(f"{directory / MANIFEST} {reason}; {remedy(directory)}.") from None


def read_manifest(directory: Path, text: str | bytes) -> Bundle:
    """The bundle in `directory` that the JSON `text` describes; its files are not read.

    Raises UserError for the first field that is missing, has another type or an impossible value,
    and for engines that do not fit each other.
    """
    with naming_faults(directory):
        fields = numbers.parse(text)
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        bundle = _parse(directory, cast("dict[str, Any]", fields))
        _check_values(bundle)
    return bundle


def _parse(path: Path, fields: Mapping[str, Any]) -> Bundle:
    """The manifest's fields as a Bundle; KeyError names a missing one."""
    if fields["format"] != FORMAT:
        raise UserError(
            f"{path / MANIFEST} has format {fields['format']}, this synfer-rt reads {FORMAT}; "
            "install the version that matches, or build the bundle again with `synfer-rt "
            "build-engines`."
        )
    fields = current_manifest(fields)
    numbers.check(fields)
    for key in ("layouts", "source", "exporter", "files"):
        fields[key]
    if not isinstance(fields.get("annotators_know", ""), str):
        raise TypeError(f"annotators_know {fields['annotators_know']!r} is not a text")
    if not isinstance(fields.get("guidance_embedding", False), bool):
        raise TypeError(f"guidance_embedding {fields['guidance_embedding']!r} is not true or false")
    label_schemes.scheme(fields["label_scheme"])
    height, width = fields["image_size"]
    if "face_template" in fields:
        read_template(fields["face_template"], (height, width))
    latent = _section(Latent, fields["latent"])
    sizes = _section(Sizes, fields["sizes"]) if fields.get("sizes") is not None else None
    axes = sizes.axes((height, width), latent.shape[1:]) if sizes else {}
    engines = {
        name: EngineSpec.from_manifest(name, spec) for name, spec in fields["engines"].items()
    }
    try:
        plans = read_plans(fields.get("plans", {}), engines, fields["files"], axes)
        cuda = read_cuda(fields.get("cuda", {}), engines, fields["files"])
        distilled = read_distilled(fields["qualities"]) if "qualities" in fields else None
    except ValueError as problem:
        raise UserError(f"{path / MANIFEST}: {problem}; {remedy(path)}.") from None
    return Bundle(
        path=path,
        bundle_hash=identity(fields),
        name=str(fields["name"]),
        version=str(fields["version"]),
        licence=str(fields["licence"]),
        description=str(fields["description"]),
        image_size=(height, width),
        sizes=sizes,
        latent=latent,
        prediction_type=fields["prediction_type"],
        schedule=Schedule.from_manifest(fields["schedule"]),
        au_names=_au_names(fields["au_vocabulary"]),
        label_scheme=fields["label_scheme"],
        max_length=fields["tokenizer"]["max_length"],
        defaults=_section(Defaults, {"quality": BEST, **fields["defaults"]}),
        distilled=distilled,
        engines=engines,
        plans=plans,
        cuda=cuda,
        manifest=fields,
        stamps={name: stamp(path / name) for name in fields["files"] if name not in NOT_SAMPLED},
    )


def _au_names(vocabulary: Any) -> tuple[str, ...]:
    """The units of a vocabulary's name, or of a list of names; none for null."""
    if isinstance(vocabulary, str):
        return facs.vocabulary(vocabulary)
    return tuple(str(name) for name in vocabulary or ())


def _section(kind: type[_Section], fields: Mapping[str, Any]) -> _Section:
    """A dataclass from those of `fields` that it knows; every one of its fields must be there.

    Raises TypeError for a value of another type; a whole number is also a float.
    """
    values: dict[str, Any] = {}
    for name, wanted in get_type_hints(kind).items():
        value = fields[name]
        if isinstance(value, bool) or not isinstance(
            value, (int, float) if wanted is float else wanted
        ):
            raise TypeError(f"{name} {value!r} is not of type {wanted.__name__}")
        values[name] = wanted(value)
    return kind(**values)


def _check_values(bundle: Bundle) -> None:
    """Raise UserError unless the engines fit each other and the fields have possible values."""
    slots, defaults = bundle.manifest["history_slots"], bundle.defaults
    free = bundle.sizes is not None
    problem = mismatch(
        bundle.engines,
        (bundle.latent.channels, *LATENT_AXES) if free else bundle.latent.shape,
        IMAGE_AXES if free else bundle.image_size,
        bundle.max_length,
        len(bundle.au_names),
        len(bundle.classes),
        bundle.guidance_embedding,
    )
    if bundle.prediction_type not in PREDICTION_TYPES:
        problem = f"unknown prediction type {bundle.prediction_type!r}"
    elif slots != HISTORY_SLOTS:
        problem = f"{slots} history slots instead of {HISTORY_SLOTS}"
    elif defaults.solver not in SOLVERS:
        problem = f"unknown default solver {defaults.solver!r}"
    elif defaults.layout not in ("bank", "none"):
        problem = f"the default layout is {defaults.layout!r}, not 'bank' or 'none'"
    elif bundle.sizes is not None and not bundle.sizes.allow(bundle.image_size):
        problem = f"its image size {list(bundle.image_size)} is not among {bundle.sizes}"
    elif defaults.layout == "bank" and not bundle.layout_count:
        problem = "the default layout is the bank, but there is none"
    elif problem is None and (stranger := _stranger(bundle)) is not None:
        problem = stranger
    elif not _decreases(bundle.schedule.alphas_cumprod):
        problem = "its noise schedule does not decrease from 1 towards 0"
    else:
        try:
            bundle.trajectory()
        except UserError as error:
            problem = f"its default settings cannot be sampled ({str(error).rstrip('.')})"
    problem = problem or _quality_problem(bundle)
    if problem is not None:
        raise UserError(f"{bundle.path / MANIFEST}: {problem}; {remedy(bundle.path)}.")


def _stranger(bundle: Bundle) -> str | None:
    """Why a head's vote cannot be one on the bundle's classes, or None."""
    for _, head in bundle.heads:
        own, known = set(label_schemes.scheme(head.label_scheme)), set(bundle.classes)
        targets = {name for parts in head.mapping.values() for name in parts}
        if not head.mapping.keys() <= own or not targets <= known:
            return f"the mapping of {head.annotator} names classes that are not there"
        reached = label_schemes.reached(head.label_scheme, bundle.label_scheme, head.mapping)
        if len(reached) < (2 if head.mapping else 1):
            return f"{head.annotator} has no classes in common with it, and no mapping to them"
    return None


def _quality_problem(bundle: Bundle) -> str | None:
    """Why images cannot be made in one of the qualities, or None."""
    student, default = bundle.distilled, bundle.defaults.quality
    if default not in bundle.qualities:
        return f"the default quality is {default!r}, not one of {', '.join(bundle.qualities)}"
    if student is None:
        return None
    if student.denoiser not in bundle.engines:
        return f"its quality {FAST} needs the engine {student.denoiser}, which is missing"
    try:
        for strength in student.strengths:
            bundle.trajectory(strength=strength, quality=FAST)
        bundle.trajectory(quality=default)
    except UserError as error:
        return f"its quality {FAST} cannot be sampled ({str(error).rstrip('.')})"
    return None


def _decreases(alphas_cumprod: np.ndarray) -> bool:
    inside = (alphas_cumprod >= 0) & (alphas_cumprod < 1)
    return bool(inside.all() and (np.diff(alphas_cumprod) <= 0).all())


def named_files(fields: Mapping[str, Any]) -> set[str]:
    """The files that the manifest's fields name: engines, tokenizer and layout bank."""
    named = {engine["file"] for engine in fields["engines"].values()}
    named.add(fields["tokenizer"]["file"])
    if fields["layouts"] is not None:
        named.add(fields["layouts"]["file"])
    return named
