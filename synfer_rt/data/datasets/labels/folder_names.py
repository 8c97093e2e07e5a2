"""What folders say of the images in them: `happy/…`, `Angry/0001/…`, `0_neutral/…`.

A folder is judged in company: by what the folders beside it are called, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from synfer_rt.data.datasets.labels.label import UNLABELLED, Label, label_of
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import label_schemes

_FEW_CODES = 3
"""From so many classes on, the codes of expressions are no accident."""
_MOST_CLASSES = 50
"""More folders beside each other are people or clips."""
_MISSPELT = 0.7
"""From which likeness on, 0 to 1, a folder is taken for the misspelt name of a class."""


class FolderNames:
    """The classes that folders are named after, of images by their names (`train/happy/1.png`).

    A name is read as a class's word (`Happiness`, `0_neutral`, `happy_faces`); as a code (`AN`,
    `joy`) beside a class's word or codes of other classes; and with `label_scheme` as a number of
    it, where all numbers at its depth of the dataset are of that scheme.
    """

    def __init__(self, names: Iterable[str], label_scheme: str | None) -> None:
        beside: dict[str, set[str]] = {}
        for folder in {name.rpartition("/")[0] for name in names}:
            for above, part in _places(f"{folder}/"):
                beside.setdefault(above, set()).add(part)
        self._words = {above: _words(folders) for above, folders in beside.items()}
        self._like_classes = {above for above, folders in beside.items() if _like_classes(folders)}
        at_depth: dict[int, set[str]] = {}
        for above, folders in beside.items():
            at_depth.setdefault(len(above.split("/")) if above else 0, set()).update(folders)
        self._numbers = {
            depth: {} if label_scheme is None else _numbers(folders, label_scheme)
            for depth, folders in at_depth.items()
        }

    def label(self, name: str) -> Label:
        """That of the nearest folder with a class's word, else of the one that is its number."""
        places = _places(name)
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
            return Label(None, f"its folders {written} are both numbers of classes", written)
        if counting:
            return counting[0]
        for above, part in places:
            if self._words[above] or above in self._like_classes:
                why = f"it is in no folder of a class: {part!r} is no known expression"
                return Label(None, why, part)
        return numbers[0] if numbers else Label(None, "it is in no folder of a class")

    @property
    def any(self) -> bool:
        """Whether some folder says a class, or several beside each other almost do."""
        numbers = any(label.scheme for found in self._numbers.values() for label in found.values())
        return numbers or any(self._words.values()) or bool(self._like_classes)

    def check_spelling(self, names: Iterable[str]) -> None:
        """Raise UserError for a folder that seems to be the misspelt name of a class.

        `names` are those of images; only folders count in which no image has a class: `fer/other`
        may be beside `fer/fear`.
        """
        folders = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
        classes = {folder for folder in folders if self.label(f"{folder}/").name is not None}
        around = {above for folder in classes for above, _ in _places(f"{folder}/")}
        for folder in folders:
            if folder in classes:
                continue
            for above, part in _places(f"{folder}/"):
                near = _near(part)
                if len(near) == 1 and f"{above}/{part}".lstrip("/") not in around:
                    raise UserError(
                        f"The folder {folder} has images, and {part!r} is no known expression; the "
                        f"nearest is {near.pop()}. Rename it, or move it out of the dataset."
                    )


def with_folder(own: Label, folder: Label) -> Label:
    """The label of an image of which a list or sample says `own`, and its folders `folder`.

    Its own goes first, unless that is a number of which nobody says the meaning.
    """
    if own == UNLABELLED and folder.written is not None:
        return folder
    return folder if own.needs_scheme and folder.name is not None else own


def _places(name: str) -> Sequence[tuple[str, str]]:
    """Each folder of a name, outermost first, after the folders that it lies in."""
    parts = name.split("/")[:-1]
    return [("/".join(parts[:i]), part) for i, part in enumerate(parts)]


def _words(folders: Iterable[str]) -> dict[str, str]:
    """The classes that folders beside each other say in words, by folder."""
    certain = {f: name for f in folders if (name := label_schemes.expression(f, due=False))}
    with_codes = {f: name for f in folders if (name := label_schemes.expression(f))}
    due = certain or len(set(with_codes.values())) >= _FEW_CODES
    return with_codes if due else certain


def _near(folder: str) -> set[str]:
    """The classes that its words are like: one if it is misspelt, two in `Sadly Surprised`."""
    near = {
        label_schemes.nearest_expression(word, _MISSPELT) for word in label_schemes.words(folder)
    }
    return {name for name in near if name is not None}


def _like_classes(folders: Collection[str]) -> bool:
    """Whether most of these folders, and more than one, are like classes, each another."""
    if len(folders) > _MOST_CLASSES:
        return False
    near = [found for folder in folders if (found := _near(folder))]
    return len(set[str]().union(*near)) > 1 and 2 * len(near) > len(folders)


def _numbers(folders: Iterable[str], label_scheme: str) -> dict[str, Label]:
    """The labels of folders of one depth that are numbers of a scheme, by folder.

    Where one is no number of it, or is written as `0001`, all are numbers of something else.
    """
    numbers = [folder for folder in folders if re.fullmatch(r"[0-9]{1,9}", folder)]
    if padded := [folder for folder in numbers if str(int(folder)) != folder]:
        why = f"it is in no folder of a class: {min(padded)} begins with 0, as numbers of clips do"
        return {folder: Label(None, why) for folder in numbers}
    first, named = (
        label_schemes.FIRST.get(label_scheme, 0),
        label_schemes.NO_EXPRESSION.get(label_scheme, {}),
    )
    last = first + len(label_schemes.scheme(label_scheme)) - 1
    beyond = [folder for folder in numbers if int(folder) > last and int(folder) not in named]
    if not beyond:
        return {folder: label_of(folder, label_scheme) for folder in numbers}
    why = f"it is in no folder of a class: {min(beyond, key=int)} is no number of {label_scheme}"
    return {folder: Label(None, why) for folder in numbers}
