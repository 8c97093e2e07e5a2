"""A studio of the bundle that ships, on engines that its tests share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the studio needs synfer-rt[studio]")
pytest.importorskip("uvicorn", reason="the studio needs synfer-rt[studio]")

import synfer_rt
from synfer_rt.api import Model
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.studio.server import Studio
from tests.studio.again import Again

BACKEND = "onnxruntime-cpu"


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return open_bundle()


@pytest.fixture(scope="session")
def engines(bundle: Bundle) -> LoadedEngines:
    return LoadedEngines(bundle, BACKEND, 1)


@pytest.fixture(scope="module")
def studio(engines: LoadedEngines) -> Iterator[Studio]:
    """One that serves on another thread."""
    with Studio(engines, port=0) as opened:
        serving = threading.Thread(target=opened.run)
        serving.start()
        yield opened
        opened.stop()
        serving.join()


@pytest.fixture
def again(
    bundle: Bundle, engines: LoadedEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Again:
    """Runs texts as a user would, in an empty folder, on the engines that are loaded."""

    def load(own: Path | None = None, *, backend: str, threads: int | None = None) -> Model:
        assert own is None and backend == BACKEND
        loaded = Model(bundle, backend, 1)
        loaded._engines = engines
        return loaded

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synfer_rt, "load", load, raising=False)
    monkeypatch.setattr("synfer_rt.api.load", load)
    return Again(tmp_path)
