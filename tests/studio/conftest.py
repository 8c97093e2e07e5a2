"""A studio of the bundle that ships, on engines that its tests share."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("starlette", reason="the studio needs synfer-rt[studio]")
pytest.importorskip("uvicorn", reason="the studio needs synfer-rt[studio]")

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.studio.server import Studio

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
