"""Label schemes as users give them: by name, as a list of classes, or in a file with mappings.

A scheme file, YAML or JSON, has these keys:

    name        what the scheme is called, in messages
    classes     its classes in the order of their numbers from 0
    mappings    by scheme: what a class is there, {class: class} or {class: {class: weight, …}}

A mapping translates classes that the other scheme does not have by the same name. The weights of a
class add up to 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, cast

from synfer_rt.errors import UserError, installing
from synfer_rt.paths import local
from synfer_rt.vocabulary.label_schemes import (
    Mapped,
    class_name,
    is_expression,
    listed,
    plain_name,
    scheme,
)

SUFFIXES = (".yaml", ".yml", ".json")
_FIELDS = ("name", "classes", "mappings")
_OFF = 1e-6
"""How far rounding may take the sum of weights from 1."""


@dataclass(frozen=True)
class LabelScheme:
    """A label scheme: its text, as `label_schemes.scheme` takes it, and mappings to others by text.

    `name` is the name in its file, or the text.
    """

    text: str
    mappings: Mapping[str, Mapped] = field(default_factory=dict[str, Mapped])
    name: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Its classes, in the order of their numbers."""
        return scheme(self.text)

    def mapped_to(self, target: str) -> Mapped:
        """The mapping to the classes of the scheme `target`, in whatever order; {} without one.

        The one that names the target goes before those to its classes in another order. Raises
        UserError if there are several of these, and they differ.
        """
        if target in self.mappings:
            return self.mappings[target]
        wanted = set(filter(is_expression, scheme(target)))
        same = [
            other for other in self.mappings if set(filter(is_expression, scheme(other))) == wanted
        ]
        for other in same[1:]:
            if self.mappings[other] != self.mappings[same[0]]:
                raise UserError(
                    f"The label scheme {self.name or self.text} has different mappings to "
                    f"{same[0]} and to {other}, which have the classes of {target}; write the one "
                    f"that is meant as `{target}`, or remove the other."
                )
        return self.mappings[same[0]] if same else {}


def given_scheme(
    value: object, argument: str = "label_scheme", folder: Path | None = None
) -> LabelScheme:
    """The scheme that `value` gives: a known name, a list of names, a file, or what a file holds.

    A list is a text with commas or a list of texts, a file a path, from `folder` on if it is
    relative. Raises UserError as `label_schemes.scheme`, naming the `argument`, and for a file that
    cannot be used.
    """
    if (path := _file(value, argument, folder)) is not None:
        return _of_content(_content(path), str(path), folder=path.parent)
    if isinstance(value, Mapping):
        return _of_content(cast("Mapping[Any, Any]", value), f"`{argument}`", folder)
    if isinstance(value, Sequence) and not isinstance(value, str):
        names = cast("Sequence[Any]", value)
        if len(names) > 1 and all(isinstance(name, str) for name in names):
            value = ",".join(_without_commas(name, f"`{argument}`") for name in names)
    scheme(value)
    text = cast(str, value)
    return LabelScheme(text, name=text)


def _file(value: object, argument: str, folder: Path | None) -> Path | None:
    """The scheme file that `value` names, if it is a path."""
    is_file = isinstance(value, str) and value.lower().endswith(SUFFIXES)
    if not is_file and not isinstance(value, PathLike):
        return None
    path = local(cast("str | PathLike[str]", value), argument)
    return path if folder is None else folder / path


def _content(path: Path) -> Mapping[Any, Any]:
    """The keys of a scheme file. Raises UserError for one that cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        value: object = (
            json.loads(text, object_pairs_hook=_each_once)
            if path.suffix.lower() == ".json"
            else _yaml(text, path)
        )
    except OSError as error:
        raise UserError(
            f"The label scheme {path} cannot be read ({error.strerror}); name its file."
        ) from None
    except (ValueError, TypeError, RecursionError) as error:  # a key may be a list in YAML
        raise UserError(f"{path} cannot be read ({error}); correct it.") from None
    if isinstance(value, list):
        return {"classes": cast("list[Any]", value)}
    if not isinstance(value, Mapping):
        raise UserError(f"{path} must hold `classes`, such as `classes: [neutral, happy, bored]`.")
    return cast("Mapping[Any, Any]", value)


def _each_once(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping of these keys and values. Raises ValueError for a key that is there twice."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is written twice")
        found[key] = value
    return found


def _yaml(text: str, path: Path) -> object:
    try:
        yaml: Any = import_module("yaml")
    except ModuleNotFoundError:
        raise UserError(
            f"{path} is YAML, which needs the package pyyaml; {installing('plan')}, or write the "
            "scheme as .json."
        ) from None

    # PyYAML takes the last value of a key that is written twice.
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("tag:yaml.org,2002:map", _yaml_mapping)
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}: "
        problem = getattr(error, "problem", None) or "not YAML"
        raise ValueError(f"{where}{problem}") from None


def _yaml_mapping(loader: Any, node: Any) -> dict[Any, Any]:
    return _each_once(loader.construct_pairs(node, deep=True))


def _of_content(fields: Mapping[Any, Any], where: str, folder: Path | None) -> LabelScheme:
    """The scheme of a file's keys; `where` names the file, `folder` is that of paths in it."""
    if unknown := [key for key in fields if key not in _FIELDS]:
        raise UserError(
            f"{where} has the key {unknown[0]!r}, which a label scheme has not; write "
            f"{', '.join(_FIELDS)}."
        )
    text = _classes(fields, where)
    others: object = fields.get("mappings") or {}
    if not isinstance(others, Mapping):
        raise UserError(f"{where} must hold `mappings` by label scheme, got {others!r}.")
    mappings: dict[str, Mapped] = {}
    for key, mapping in cast("Mapping[Any, Any]", others).items():
        path = _file(key, "mappings", folder)
        # Of another file the classes count, not its mappings, which may lead back to this one.
        target = given_scheme(key).text if path is None else _classes(_content(path), str(path))
        if target in mappings:
            raise UserError(f"{where} has two mappings to {target}; write one.")
        mappings[target] = _mapping(mapping, scheme(text), scheme(target), f"{where}, {key}")
    return LabelScheme(text, mappings, str(fields.get("name") or where))


def _classes(fields: Mapping[Any, Any], where: str) -> str:
    """The classes of a file's keys as a text."""
    given: object = fields.get("classes")
    if not isinstance(given, list) or not all(
        isinstance(name, str) for name in cast("list[Any]", given)
    ):
        raise UserError(
            f"{where} must list its `classes` as texts, such as [neutral, happy, bored], got "
            f"{given!r}."
        )
    text = _text(cast("list[str]", given), where)
    try:
        scheme(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return text


def _text(names: Sequence[str], where: str) -> str:
    """The classes of a file as a text; a word for an expression is one, unless two words are."""
    classes = [class_name(_without_commas(name, where)) for name in names]
    own = [plain_name(name) for name in names]
    text = listed(
        [
            word if classes.count(name) > 1 and word else name
            for name, word in zip(classes, own, strict=True)
        ]
    )
    return text if len(names) > 1 else f"{text},"


def _without_commas(name: str, where: str) -> str:
    if "," in name:
        raise UserError(f"{where} has the class {name!r}; write its name without commas.")
    return name


def _mapping(
    given: object, sources: Sequence[str], targets: Sequence[str], where: str
) -> dict[str, dict[str, float]]:
    """{class: {class: weight}} of one scheme to another, checked."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: a mapping is written {{bored: neutral, …}}, got {given!r}.")
    found: dict[str, dict[str, float]] = {}
    for written, parts in cast("Mapping[Any, Any]", given).items():
        name = _member(written, sources, where)
        if name in found:
            raise UserError(f"{where}: {name} is mapped twice; map each class once.")
        if not isinstance(parts, Mapping | str):
            raise UserError(
                f"{where}: {name} must be mapped to a class, or to several with weights, "
                f"{{sad: 0.5, fear: 0.5}}, got {parts!r}."
            )
        shares = {parts: 1.0} if isinstance(parts, str) else cast("Mapping[Any, Any]", parts)
        weights: dict[str, float] = {}
        for target, weight in shares.items():
            whole = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not whole or not 0 < weight <= 1:
                raise UserError(
                    f"{where}: the weight of {target!r} for {name} must be above 0 and at most 1, "
                    f"got {weight!r}."
                )
            to = _member(target, targets, where)
            weights[to] = weights.get(to, 0.0) + float(weight)
        if not math.isclose(sum(weights.values()), 1, abs_tol=_OFF):
            raise UserError(
                f"{where}: the weights of {name} add up to {sum(weights.values()):g}; they must "
                "add up to 1."
            )
        found[name] = weights
    return found


def _member(written: object, classes: Sequence[str], where: str) -> str:
    """The class that a text of a mapping names."""
    text = written if isinstance(written, str) else ""
    name = plain_name(text)
    name = name if name in classes else class_name(text)
    if name not in classes or not is_expression(name):
        known = ", ".join(filter(is_expression, classes))
        raise UserError(f"{where}: {written!r} is not a class of that scheme; it has {known}.")
    return name
