"""Folders named after classes: `happy/…`, `Angry/0001/…`, `0_neutral/…`.

Whether a name is a class also depends on the names of the folders beside it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from synfer_rt.data.datasets.labels.label import UNLABELLED, Label, label_of
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import expressions, label_schemes

_FEW_CODES = 3
"""The number of classes from which the codes of expressions are no coincidence."""
_MOST_CLASSES = 50
"""More folders than these beside each other are people or clips."""
_MISSPELT = 0.7
"""The likeness, 0 to 1, from which the name of a folder is taken for a misspelt class."""


class FolderNames:
    """The classes that the folders of images are named after.

    `names` are the names of all images, such as `train/happy/1.png`. A folder is named after a
    class by a word (`Happiness`, `0_neutral`, `happy_faces`); by a code (`AN`, `joy`), if there are
    words, or codes of other classes, beside it; and by a number of `label_scheme`, if all numbers
    at the same depth of the dataset are numbers of that scheme.
    """

    def __init__(self, names: Iterable[str], label_scheme: str | None) -> None:
        beside: dict[str, set[str]] = {}
        for folder in {name.rpartition("/")[0] for name in names}:
            for above, part in _places(f"{folder}/"):
                beside.setdefault(above, set()).add(part)
        own = label_schemes.own_classes(label_scheme)
        self._words = {above: _words(folders, own) for above, folders in beside.items()}
        self._like_classes = {above for above, folders in beside.items() if _like_classes(folders)}
        at_depth: dict[int, set[str]] = {}
        for above, folders in beside.items():
            at_depth.setdefault(len(above.split("/")) if above else 0, set()).update(folders)
        self._numbers = {
            depth: {} if label_scheme is None else _numbers(folders, label_scheme)
            for depth, folders in at_depth.items()
        }
        self._labels: dict[str, Label] = {}

    def label(self, name: str) -> Label:
        """The label of an image: the nearest folder with a class in words, else with its number."""
        return self._of_folder(name.rpartition("/")[0])

    def _of_folder(self, folder: str) -> Label:
        """The label of an image in a folder, which is empty for one in none."""
        if folder not in self._labels:
            self._labels[folder] = self._of_places(_places(f"{folder}/") if folder else [])
        return self._labels[folder]

    def _of_places(self, places: Sequence[tuple[str, str]]) -> Label:
        for above, part in reversed(places):
            if word := self._words[above].get(part):
                return Label(word, None, part)
        numbers = [
            label
            for depth, (_, part) in enumerate(places)
            if (label := self._numbers[depth].get(part)) is not None
        ]
        counting = [label for label in numbers if label.scheme is not None]
        if len(counting) > 1:
            written = " and ".join(str(label.written) for label in counting)
            return Label(None, f"its folders {written} are both class numbers", written)
        if counting:
            return counting[0]
        for above, part in places:
            if self._words[above] or above in self._like_classes:
                why = f"it is not in a class folder: {part!r} is not a known expression"
                return Label(None, why, part)
        return numbers[0] if numbers else Label(None, "it is not in a class folder")

    @property
    def any(self) -> bool:
        """Whether a folder is named after a class, or several beside each other nearly are."""
        numbers = any(label.scheme for found in self._numbers.values() for label in found.values())
        return numbers or any(self._words.values()) or bool(self._like_classes)

    def check_spelling(self, names: Iterable[str]) -> None:
        """Raise UserError for a folder whose name seems to be a misspelt class.

        `names` are the names of images. A folder that contains folders of classes may have any
        name: `fer` is no misspelt `fear` if `fer/happy` is there.
        """
        folders = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
        classes = {folder for folder in folders if self._of_folder(folder).name is not None}
        around = {above for folder in classes for above, _ in _places(f"{folder}/")}
        for folder in folders:
            if folder in classes:
                continue
            for above, part in _places(f"{folder}/"):
                near = _near(part)
                if len(near) == 1 and f"{above}/{part}".lstrip("/") not in around:
                    raise UserError(
                        f"The folder {folder} has images, but {part!r} is not a known expression; "
                        f"the nearest is {near.pop()}. Rename the folder, or move it out of the "
                        "dataset."
                    )


def with_folder(own: Label, folder: Label) -> Label:
    """The label of an image by its `own` label and by that of its folder.

    Its own goes first, unless it is a number without a meaning.
    """
    if own == UNLABELLED and folder.written is not None:
        return folder
    return folder if own.needs_scheme and folder.name is not None else own


def _places(name: str) -> Sequence[tuple[str, str]]:
    """Each folder of a name, outermost first, as (the path that it is in, its own name)."""
    parts = name.split("/")[:-1]
    return [("/".join(parts[:i]), part) for i, part in enumerate(parts)]


def _words(folders: Iterable[str], own: tuple[str, ...]) -> dict[str, str]:
    """The classes that folders beside each other name in words or codes, by folder.

    `own` are the classes of the dataset's label scheme that are no expressions.
    """
    named = {f: name for f in folders if own and (name := label_schemes.own_class(f, own))}
    certain = {f: name for f in folders if (name := expressions.expression(f, expected=False))}
    certain |= named
    with_codes = {f: name for f in folders if (name := expressions.expression(f))} | named
    due = certain or len(set(with_codes.values())) >= _FEW_CODES
    return with_codes if due else certain


def _near(folder: str) -> set[str]:
    """The classes that the words of a name are like: one if it is misspelt, two if compound."""
    near = {expressions.nearest_expression(word, _MISSPELT) for word in expressions.words(folder)}
    return {name for name in near if name is not None}


def _like_classes(folders: Collection[str]) -> bool:
    """Whether most of these folders have names like classes, and there are two such classes."""
    if len(folders) > _MOST_CLASSES:
        return False
    near = [found for folder in folders if (found := _near(folder))]
    return len(set[str]().union(*near)) > 1 and 2 * len(near) > len(folders)


def _numbers(folders: Iterable[str], label_scheme: str) -> dict[str, Label]:
    """The labels of the folders at one depth that are class numbers, by folder.

    If one of them is no number of the scheme, or is written as `0001`, none is a class number.
    """
    numbers = [folder for folder in folders if re.fullmatch(r"[0-9]{1,9}", folder)]
    if padded := [folder for folder in numbers if str(int(folder)) != folder]:
        why = (
            f"it is not in a class folder: {min(padded)} begins with 0, so it is not a class number"
        )
        return {folder: Label(None, why) for folder in numbers}
    first, named = (
        label_schemes.FIRST_NUMBER.get(label_scheme, 0),
        label_schemes.NON_EXPRESSIONS.get(label_scheme, {}),
    )
    last = first + len(label_schemes.scheme(label_scheme)) - 1
    beyond = [folder for folder in numbers if int(folder) > last and int(folder) not in named]
    if not beyond:
        return {folder: label_of(folder, label_scheme) for folder in numbers}
    why = f"it is not in a class folder: {min(beyond, key=int)} is not a number of {label_scheme}"
    return {folder: Label(None, why) for folder in numbers}
