"""What `label` gives back: the labels of a dataset, from its table or from memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from synfer_rt.data import notebook
from synfer_rt.data.label_table import Table, Tally
from synfer_rt.records import Record


class Lines:
    """The lines of `label` in memory, for a job that writes no table; see `Table`."""

    def __init__(self, form: Record) -> None:
        self.form = form
        self._lines: list[Record] = []

    @property
    def done(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    def records(self) -> Iterator[Record]:
        """The lines in their order."""
        return iter(self._lines)

    def write(self, records: Sequence[Record]) -> None:
        """Append records."""
        self._lines += records

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True, repr=False)
class LabelledImage:
    """What `label` says of one image; docs/labelling.md describes the fields.

    `label` is the vote's best class. `accepted` says whether to keep the image, if there was
    anything to accept (`asked`). An image that cannot be read has an `error` and no label.
    `probabilities` and `votes` are by class and annotator, `aus` are intensities in 0 to 1, or -1
    if the bundle does not read them. `valence` and `arousal`, -1 to 1, are 0 if no classifier reads
    them. With a calibration `label_set` says for each class whether it is in the set of `coverage`.
    """

    index: int
    file_name: str
    label: str
    asked: bool
    accepted: bool
    rectified: bool
    given_label: str
    written_label: str
    label_problem: str
    error: str
    label_scheme: str
    bundle: str
    backend: str
    probabilities: Mapping[str, float]
    votes: Mapping[str, str]
    aus: Mapping[str, float]
    valence: float = 0.0
    arousal: float = 0.0
    label_set: Mapping[str, bool] = field(default_factory=dict[str, bool])
    coverage: float = 0.0

    @property
    def confidence(self) -> float:
        """The probability of `label`, 0 to 1; 0 for an image that cannot be read."""
        return self.probabilities.get(self.label, 0.0)

    def __repr__(self) -> str:
        if self.error:
            return f"LabelledImage({self.file_name!r}, error={self.error!r})"
        said = f"label={self.label!r}, confidence={self.confidence:.2f}"
        return f"LabelledImage({self.file_name!r}, {said}, accepted={self.accepted})"


class Labels:
    """The labels of a dataset: iterate over them for a LabelledImage each, in its order.

    `path` is the table that was written, None for labels in memory; `new` counts the images of
    this call. `labels` and `accepted` count images by label. `rectified`, `asked` and `given` count
    the images whose label the vote replaced, those for which there was something to accept, and
    those that the dataset labels; `problems` counts the dataset's labels that are not understood,
    by the reason. `skipped` are the images that cannot be read.
    """

    def __init__(self, table: Table | Lines, tally: Tally, new: int) -> None:
        self._table = table
        self.path = table.path if isinstance(table, Table) else None
        self.new = new
        self.labels: Counter[str] = tally.labels
        self.accepted: Counter[str] = tally.accepted
        self.problems: Counter[str] = tally.problems
        self.rectified, self.asked, self.given = tally.rectified, tally.asked, tally.given
        self.skipped: tuple[tuple[str, str], ...] = tuple(tally.skipped)

    def __iter__(self) -> Iterator[LabelledImage]:
        for line in self._table.records():
            yield LabelledImage(**line)

    def __len__(self) -> int:
        return self.labels.total() + len(self.skipped)

    def __repr__(self) -> str:
        counts = ", ".join(f"{label} {count}" for label, count in self.labels.most_common())
        where = "" if self.path is None else f" in {str(self.path)!r}"
        return f"Labels({len(self)} images{where}: {counts or 'none labelled'})"

    def _repr_html_(self) -> str:
        rows = [(label, n, self.accepted[label]) for label, n in self.labels.most_common()]
        where = "" if self.path is None else f" in {self.path}"
        skipped = f"; {len(self.skipped)} cannot be read" if self.skipped else ""
        said = f"{len(self)} images{where}{skipped}"
        return notebook.table(("label", "images", "accepted"), rows, said)
