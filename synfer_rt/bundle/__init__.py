"""The bundle: a directory of engines and what is needed to run them, described by bundle.json.

This file alone knows the manifest's schema; docs/architecture.md lists its fields. A bundle is
checked wholly before anything of it is loaded.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import numbers
from synfer_rt.bundle.engine_specs import (
    IMAGE_AXES,
    LATENT_AXES,
    EngineSpec,
    PlanSpec,
    RuntimeParity,
    TensorSpec,
    has_labels,
    mismatch,
    read_plans,
)
from synfer_rt.bundle.files import MANIFEST, check_files, file_entry, inside, remedy
from synfer_rt.bundle.identity import CARD, former_identity, identity
from synfer_rt.bundle.sizes import Size, Sizes, format_size
from synfer_rt.bundle.stamps import Stamp, stamp
from synfer_rt.bundle.textual_inversion import words_of_vectors, write_out
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import (
    HISTORY_SLOTS,
    PREDICTION_TYPES,
    SOLVERS,
    Trajectory,
    trajectory,
)
from synfer_rt.errors import UserError
from synfer_rt.paths import local
from synfer_rt.vocabulary import facs, label_schemes

FORMAT = 1
_UNREADABLE = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RecursionError, MemoryError),
)
ANNOTATOR = "annotator"
"""The engine of FERAnno, which reads an expression off latents."""


@dataclass(frozen=True)
class Latent:
    """Shape of one image's latents, [channels, height, width], and the VAE's scaling factor."""

    channels: int
    height: int
    width: int
    scaling_factor: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Defaults:
    """How the model's makers would sample it."""

    solver: str
    steps: int
    guidance: float
    au_scale: float
    layout: str
    layout_strength: float
    negative_prompt: str


@dataclass(frozen=True)
class Layouts:
    """Neutral faces to start from: `latents` float32 [N, C, h, w], and their words, str [N]."""

    latents: np.ndarray
    age: np.ndarray
    gender: np.ndarray
    ancestry: np.ndarray

    def __len__(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class Bundle:
    """A checked bundle; `open_bundle` makes it.

    `image_size` is (H, W), `sizes` what else the engines take, None where it is fixed; `au_names`
    the AU vector's units in order, empty for a model without AUs; `classes` the label scheme's
    names in order; `bundle_hash` a SHA-256 of what a sample depends on, every byte of it
    (bundle_identity.py); `plans` the compiled engines by target and engine, mostly
    none; `manifest` the file as read; `stamps` what the files' system said of them then.
    """

    path: Path
    bundle_hash: str
    name: str
    version: str
    licence: str
    description: str
    image_size: tuple[int, int]
    sizes: Sizes | None
    latent: Latent
    prediction_type: str
    schedule: Schedule
    au_names: tuple[str, ...]
    label_scheme: str
    max_length: int
    defaults: Defaults
    engines: Mapping[str, EngineSpec]
    plans: Mapping[str, Mapping[str, PlanSpec]]
    manifest: Mapping[str, Any] = field(repr=False, compare=False)
    stamps: dict[str, Stamp | None] = field(repr=False, compare=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The label scheme's class names, in order."""
        return label_schemes.scheme(self.label_scheme)

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The names of the classifier engines, in the manifest's order."""
        return tuple(name for name in self.engines if name.startswith("classifier."))

    @property
    def annotators(self) -> tuple[str, ...]:
        """The engines that vote on a label: the classifiers, then FERAnno."""
        return self.classifiers + tuple(name for name in self.engines if name == ANNOTATOR)

    @property
    def annotators_know(self) -> str | None:
        """The only images that the annotators were trained on, or None where nothing says so."""
        return self.manifest.get("annotators_know") or None

    @property
    def former_hash(self) -> str:
        """What releases up to 0.11 called the bundle in runs and records."""
        return former_identity(self.manifest)

    @property
    def default_size(self) -> tuple[int, int]:
        """(H, W) that the model was built for; `image_size` is another in a `sizes.resized` one."""
        height, width = self.manifest["image_size"]
        return height, width

    def trajectory(
        self, solver: str | None = None, steps: int | None = None, strength: float | None = None
    ) -> Trajectory:
        """The solver's steps for this model; None means its default.

        `strength` in (0, 1] is the part of the noise schedule that is run, by default that of
        layouts where they are the default start, else 1. Raises UserError as `solvers.trajectory`.
        """
        defaults = self.defaults
        if strength is None:
            strength = defaults.layout_strength if defaults.layout == "bank" else 1.0
        return trajectory(
            defaults.solver if solver is None else solver,
            self.schedule,
            defaults.steps if steps is None else steps,
            strength,
            self.prediction_type,
        )

    @property
    def layout_count(self) -> int:
        """How many layouts the bank holds; 0 without one."""
        return int((self.manifest["layouts"] or {"count": 0})["count"])

    @cached_property
    def layouts(self) -> Layouts:
        """The layout bank, loaded on first use. Raises UserError when there is none."""
        section = self.manifest["layouts"]
        if section is None:
            raise UserError(f"{self.name} has no layout bank; start from noise with --layout none.")
        if self.image_size != self.default_size:
            raise UserError(
                f"The layout bank of {self.name} is for images of {format_size(self.default_size)},"
                f" not {format_size(self.image_size)}; start from noise with --layout none."
            )
        file = self.path / section["file"]
        try:
            with np.load(file, allow_pickle=False) as arrays:
                words = [arrays[key].astype(str) for key in ("age", "gender", "ancestry")]
                layouts = Layouts(arrays["latents"].astype(np.float32), *words)
        except Exception as error:  # zipfile, zlib and numpy raise their own kinds
            raise UserError(f"{file} is no layout bank ({error}); {remedy(self.path)}.") from None
        expected = (section["count"], *self.latent.shape)
        if layouts.latents.shape != expected or any(len(w) != len(layouts) for w in words):
            shape = layouts.latents.shape
            raise UserError(f"{file} holds {shape}, not {expected}; {remedy(self.path)}.")
        return layouts

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        file = self.path / self.manifest["tokenizer"]["file"]
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises plain Exception
            raise UserError(f"{file} is no tokenizer ({error}); {remedy(self.path)}.") from None

    @cached_property
    def _learnt_words(self) -> dict[int, tuple[str, ...]]:
        return words_of_vectors(self._tokenizer)

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids int64 [len(texts), max_length], padded, cut and framed by tokenizer.json.

        Words of several learnt vectors become all of their tokens (textual_inversion.py).
        """
        written = [write_out(self._tokenizer, text, self._learnt_words) for text in texts]
        if isinstance(texts, str):
            raise UserError(f"{texts!r} is one text; give a list of texts.")
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(written)]
        if any(len(row) != self.max_length for row in ids):
            raise UserError(
                f"{self.path / self.manifest['tokenizer']['file']} does not pad to "
                f"{self.max_length} tokens; {remedy(self.path)}."
            )
        return np.array(ids, np.int64).reshape(len(texts), self.max_length)

    def unread(self, text: str) -> tuple[str, tuple[str, ...]]:
        """What the model does not read of a text: its end, cut off, and words it does not know."""
        text = write_out(self._tokenizer, text, self._learnt_words)
        encoding = self._tokenizer.encode(text)
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        # Special tokens stand for nothing in the text.
        seen = [(token, span) for token, span in _read(encoding) if span[0] < span[1]]
        words = dict.fromkeys(text[a:b] for token, (a, b) in seen if token == unknown)
        cut = [span[0] for part in encoding.overflowing for _, span in _read(part) if any(span)]
        return text[min(cut) :] if cut else "", tuple(words)

    def check_unchanged(self) -> None:
        """Raise UserError when the bundle's files are not those that were opened.

        Runtimes map weights and copy some: with a file that is overwritten under it, a live engine
        computes with old and new ones. To be asked before what engines made is kept.
        """
        for name, before in self.stamps.items():
            file = self.path / name
            now = stamp(file)
            if now == before:
                continue
            if now is None or file_entry(file)["sha256"] != self.manifest["files"][name]["sha256"]:
                raise UserError(
                    f"{file} has changed or gone while the run went on, so that images of two "
                    "models would be mixed; put it back as it was and run the same command with "
                    "--resume, or begin another run."
                )
            self.stamps[name] = now  # the same bytes, with other times or in another place


def _read(encoding: Any) -> list[tuple[str, tuple[int, int]]]:
    return list(zip(encoding.tokens, encoding.offsets, strict=True))


def open_bundle(path: str | Path | None = None) -> Bundle:
    """The bundle in directory `path`, checked; None means the one that is installed.

    Every file is there, inside the directory, with its size and SHA-256, and the engines fit each
    other. Raises UserError, naming file and remedy, for the first thing that is not so.
    """
    if path is None:
        from synfer_rt.engines import default_bundle

        path = default_bundle()
    path = local(path).absolute()  # engines are loaded later, wherever the program is then
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The bundle's directory {str(path)!r} has a name that is no UTF-8, which engines "
            "cannot be loaded from; rename it."
        ) from None
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        otherwise = remedy(path, "give a directory that `synfer-rt build-engines` wrote")
        raise UserError(
            f"{path} is no bundle ({MANIFEST}: {error.strerror}); {otherwise}."
        ) from None
    return _described(path, text, _check_files)


def _described(
    path: Path, text: str | bytes, check: Callable[[Bundle], None] = lambda bundle: None
) -> Bundle:
    """The bundle that the manifest `text` describes, its fields checked, and then `check`ed."""
    try:
        fields = numbers.parse(text)
        bundle = _parse(path, fields)
        _check_fields(bundle)
        check(bundle)
    except _UNREADABLE as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise UserError(f"{path / MANIFEST} {reason}; {remedy(path)}.") from None
    return bundle


def write_manifest(directory: str | Path, fields: Mapping[str, Any]) -> Bundle:
    """Write bundle.json over the finished files in `directory`, and open the bundle.

    `fields` is all of the manifest but `format` and `files`, which are filled in. The file
    appears whole or not at all, and only when the bundle that it describes passes every check.
    Raises UserError otherwise.
    """
    directory = Path(directory)
    named = {engine["file"] for engine in fields["engines"].values()}
    named.add(fields["tokenizer"]["file"])
    if fields["layouts"] is not None:
        named.add(fields["layouts"]["file"])
    present = [file for file in directory.rglob("*") if file.is_file() and file.name != MANIFEST]
    named = sorted({*named, *(file.relative_to(directory).as_posix() for file in present)})
    with ThreadPoolExecutor() as pool:
        entries = pool.map(lambda name: file_entry(inside(directory, name)), named)
        files = dict(sorted(zip(named, entries, strict=True)))
    text = json.dumps({"format": FORMAT, **fields, "files": files}, indent=1, ensure_ascii=False)
    _described(directory, text)
    handle, temporary = tempfile.mkstemp(prefix=MANIFEST, dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a shared bundle from its readers
        os.replace(temporary, directory / MANIFEST)
    except BaseException:
        os.unlink(temporary)
        raise
    return open_bundle(directory)


def _parse(path: Path, fields: Any) -> Bundle:
    """The manifest's fields as a Bundle; KeyError names a missing one."""
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    if fields["format"] != FORMAT:
        raise UserError(
            f"{path / MANIFEST} has format {fields['format']}, this synfer-rt reads {FORMAT}; "
            "install the version that matches, or build the bundle again with `synfer-rt "
            "build-engines`."
        )
    numbers.check(fields)
    vocabulary = fields["au_vocabulary"]
    if isinstance(vocabulary, str):
        au_names = facs.vocabulary(vocabulary)
    else:
        au_names = tuple(str(name) for name in vocabulary or ())
    height, width = fields["image_size"]
    latent = _record(Latent, fields["latent"])
    sizes = _record(Sizes, fields["sizes"]) if fields.get("sizes") is not None else None
    axes = sizes.axes((height, width), latent.shape[1:]) if sizes else {}
    label_schemes.scheme(fields["label_scheme"])
    if not isinstance(fields.get("annotators_know", ""), str):
        raise TypeError(f"annotators_know {fields['annotators_know']!r} is no text")
    for key in ("layouts", "source", "exporter", "files"):
        fields[key]
    engines = {name: _engine(name, spec) for name, spec in fields["engines"].items()}
    try:
        plans = read_plans(fields.get("plans", {}), engines, fields["files"], axes)
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
        au_names=au_names,
        label_scheme=fields["label_scheme"],
        max_length=fields["tokenizer"]["max_length"],
        defaults=_record(Defaults, fields["defaults"]),
        engines=engines,
        plans=plans,
        manifest=fields,
        stamps={name: stamp(path / name) for name in fields["files"] if name != CARD},
    )


def _record(cls: Any, fields: Mapping[str, Any]) -> Any:
    """A dataclass from those of `fields` that it knows; every one of its fields must be there.

    Raises TypeError for a value of another type; a whole number is also a float.
    """
    values = {}
    for name, kind in get_type_hints(cls).items():
        value = fields[name]
        if isinstance(value, bool) or not isinstance(
            value, (int, float) if kind is float else kind
        ):
            raise TypeError(f"{name} {value!r} is no {kind.__name__}")
        values[name] = kind(value)
    return cls(**values)


def _engine(name: str, fields: Mapping[str, Any]) -> EngineSpec:
    def tensors(key: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in fields[key])

    return EngineSpec(
        name,
        fields["file"],
        fields["precision"],
        fields["opset"],
        tensors("inputs"),
        tensors("outputs"),
        fields["label_scheme"] if has_labels(name) else None,
        fields.get("parity") or {},
        read_parity(fields.get("parity_openvino")),
    )


def read_parity(fields: Mapping[str, Any] | None) -> RuntimeParity | None:
    """An engine's `parity_openvino` as the manifest has it.

    Raises TypeError or ValueError for numbers that are none.
    """
    if fields is None:
        return None
    error, bf16 = fields["max_relative_error"], fields.get("bf16")
    version = str(fields.get("version", ""))
    return RuntimeParity(
        version,
        float(fields["tolerance"]),
        None if error is None else float(error),
        None if bf16 is None else read_parity({"version": version, **bf16}),
    )


def _check_fields(bundle: Bundle) -> None:
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
        problem = f"its image size {list(bundle.image_size)} is not of {bundle.sizes}"
    elif defaults.layout == "bank" and not bundle.layout_count:
        problem = "the default layout is the bank, but there is none"
    elif not _falls(bundle.schedule.alphas_cumprod):
        problem = "its noise schedule does not fall from 1 towards 0"
    else:
        try:
            bundle.trajectory()
        except UserError as error:
            problem = f"its defaults cannot be sampled with ({str(error).rstrip('.')})"
    if problem is not None:
        raise UserError(f"{bundle.path / MANIFEST}: {problem}; {remedy(bundle.path)}.")


def _falls(alphas_cumprod: np.ndarray) -> bool:
    inside = (alphas_cumprod >= 0) & (alphas_cumprod < 1)
    return bool(inside.all() and (np.diff(alphas_cumprod) <= 0).all())


def _check_files(bundle: Bundle) -> None:
    """Raise UserError for the first file without a hash, or that is not what its hash says."""
    files: Mapping[str, Any] = bundle.manifest["files"]
    named = [spec.file for spec in bundle.engines.values()]
    named.append(bundle.manifest["tokenizer"]["file"])
    if bundle.manifest["layouts"] is not None:
        named.append(bundle.manifest["layouts"]["file"])
    for name in named:
        if name not in files:
            raise UserError(
                f"{bundle.path / MANIFEST} has no hash of {name}; {remedy(bundle.path)}."
            )
    check_files(bundle.path, files)


def _checked(size: Size) -> Size:
    if isinstance(size, str):
        raise UserError(f"The size {size!r} is a text; write (height, width), or parse_size of it.")
    try:
        height, width = size
    except (TypeError, ValueError):
        raise UserError(f"The size {size!r} is no pair; write (height, width) in pixels.") from None
    return ranges.whole("height", height, 1), ranges.whole("width", width, 1)


def resized(bundle: Bundle, size: Size) -> Bundle:
    """The bundle that makes images of `size` by the same engines, from noise alone.

    Its layouts are latents of the default size. Raises UserError for a size that the engines do
    not take, and for what is no size.
    """
    size = _checked(size)
    if size == bundle.image_size:
        return bundle
    if bundle.sizes is None:
        raise UserError(
            f"{bundle.name} makes images of {format_size(bundle.image_size)} only; leave out "
            "--size, or build the bundle with `synfer-rt build-engines --sizes`."
        )
    if not bundle.sizes.allow(size):
        raise UserError(
            f"{bundle.name} cannot make images of {format_size(size)}; write a height and a width "
            f"of {bundle.sizes}."
        )
    factor = bundle.image_size[0] // bundle.latent.height
    height, width = (n // factor for n in size)
    return replace(
        bundle,
        image_size=size,
        latent=replace(bundle.latent, height=height, width=width),
        defaults=replace(bundle.defaults, layout="none"),
    )
