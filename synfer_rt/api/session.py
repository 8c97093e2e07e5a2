"""A bundle on a backend, with the engines that the last job loaded."""

from __future__ import annotations

import logging

from synfer_rt.backends import choose
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.jobs.destination import Destination

LOG = logging.getLogger("synfer_rt.jobs")


class Session:
    """What every method of a `Model` needs: the bundle, and its engines on a backend.

    `bundle` describes the model: its `classes`, `au_names`, `image_size`, `defaults` and engines.
    """

    def __init__(self, bundle: Bundle, backend: str, threads: int | None) -> None:
        self.bundle = bundle
        self._backend, self._threads = backend, threads
        self._engines: LoadedEngines | None = None

    @property
    def backend(self) -> str:
        """The name of the backend that the model runs on. Raises UserError if it does not work."""
        return choose(self._backend, self.bundle)[0]

    def _engines_for(
        self, bundle: Bundle, to: Destination, asked: str | None = None
    ) -> LoadedEngines:
        """The engines for a job, on the backend on which it was begun if it continues."""
        where, why = to.computation(asked or self._backend, bundle)
        LOG.info(f"{bundle.name} {bundle.version} on {why}")
        return self._loaded(bundle, where.backend)

    def _loaded(self, bundle: Bundle, backend: str) -> LoadedEngines:
        """The engines of the last job, if they are the same."""
        last = self._engines
        if last is None or last.bundle != bundle or last.backend != backend:
            self._engines = last = LoadedEngines(bundle, backend, self._threads)
        return last
