"""The model of a bundle, and what it does."""

from __future__ import annotations

from synfer_rt.api.augmenting import Augmenting
from synfer_rt.api.labelling import Labelling
from synfer_rt.api.sampling import Sampling
from synfer_rt.api.writing import Writing
from synfer_rt.backends import thread_count
from synfer_rt.bundle import open_bundle
from synfer_rt.paths import Location


class Model(Sampling, Writing, Labelling, Augmenting):
    """A bundle's model on a backend; `load` makes it.

    `bundle` describes the model: its `classes`, `au_names`, `image_size`, `defaults` and engines.
    """

    def __repr__(self) -> str:
        height, width = self.bundle.image_size
        return (
            f"Model({self.bundle.name} {self.bundle.version}, {height}x{width} pixels, "
            f"{len(self.bundle.classes)} classes, backend={self._backend!r})"
        )


def load(
    bundle: Location | None = None, *, backend: str = "auto", threads: int | None = None
) -> Model:
    """The model in the directory `bundle`, by default the one that is installed with synfer-rt.

    `backend` is a name that `doctor` lists, or "auto" for the best that works here. `threads` is
    the number of CPU threads of the engines, 1 to 1024, by default all cores. Raises UserError for
    a directory that holds no sound bundle, and a number of threads outside that range.

    Engines are loaded when they are first needed. The call that needs them raises UserError for a
    backend that is unknown or does not work here.
    """
    thread_count(threads)  # refuses what does not fit before an engine is loaded
    return Model(open_bundle(bundle), backend, threads)
