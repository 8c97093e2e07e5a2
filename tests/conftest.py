"""What tests of the run side share: one tiny bundle of real engines, and what it samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The tests run in as many processes as there are cores, so each computes on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.diffusion.solvers import Trajectory, trajectory
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample
from tests import tiny_bundle as tiny
from tests.annotators import with_annotators
from tests.branches import with_branches
from tests.guides import with_guides
from tests.samples import request
from tests.students import with_student

Once = Callable[[str, Callable[[Path], object]], Path]

LONGEST = ("tests/docs/", "tests/export/", "tests/reference/")
# Each builds bundles of its own that later files share, so no process waits for another's.
BUILDERS = (
    "tests/export/checkpoint/test_tokenizer.py",  # sd
    "tests/export/build/test_whole_bundle.py",  # mini and plain
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: the others then fill both processes to the end."""
    items.sort(
        key=lambda item: (not item.nodeid.startswith(BUILDERS), not item.nodeid.startswith(LONGEST))
    )


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once("checkpoints/mini", make)` is a folder that one process of the run makes for all."""
    from filelock import FileLock

    root = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # a process of several has its own folder inside
        root = root.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        out, whole = root / name, root / f"{name}.whole"
        out.parent.mkdir(exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            if not whole.exists():
                make(out)
                whole.touch()
        return out

    return made


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a runtime compiles in a test stays in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO computes as on a CPU without bfloat16, so that results can be compared closely."""
    monkeypatch.setattr("synfer_rt.backends.openvino.has_bfloat16", lambda: False)


@pytest.fixture(scope="session")
def tiny_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's directory; tests that change it copy it first."""
    return tiny.build(tmp_path_factory.mktemp("bundle") / "tiny").path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundle_path: Path) -> Bundle:
    return open_bundle(tiny_bundle_path)


@pytest.fixture(scope="session")
def sampler(tiny_bundle: Bundle) -> Sampler:
    return Sampler.of(tiny_bundle, "onnxruntime-cpu", threads=1)


@pytest.fixture(scope="session")
def way(tiny_bundle: Bundle) -> Trajectory:
    return trajectory("dpmpp-2m", tiny_bundle.schedule, 4, 0.9, tiny_bundle.prediction_type)


@pytest.fixture(scope="session")
def sixty_four(sampler: Sampler, way: Trajectory) -> list[Sample]:
    return sampler.sample([request(i) for i in range(64)], way, batch=64)


@pytest.fixture(scope="session")
def voting_bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two classifiers and FERAnno vote, and an AU reader reads."""
    return with_annotators(tiny_bundle, tmp_path_factory.mktemp("bundle") / "voting")


@pytest.fixture(scope="session")
def guided_bundle(voting_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The voting bundle with guides that steer towards what its FERAnno sees."""
    return with_guides(voting_bundle, tmp_path_factory.mktemp("bundle") / "guided")


@pytest.fixture(scope="session")
def branched_bundle(guided_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The guided bundle with engines of one branch: the conditional one, and a student's."""
    return with_branches(
        guided_bundle, tmp_path_factory.mktemp("bundle") / "branched", student=True
    )


@pytest.fixture(scope="session")
def student_bundle(branched_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The branched bundle, whose student makes images unless "best" is needed."""
    return with_student(branched_bundle, tmp_path_factory.mktemp("bundle") / "student")


@pytest.fixture(scope="session")
def mini_checkpoint(once: Once) -> Path:
    from tests.export.tiny_checkpoint import make_mini

    return once("checkpoints/mini", make_mini)


@pytest.fixture(scope="session")
def shipped_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the bundle that ships; tests that change it copy it first."""
    from synfer_rt.export.build.unpack import unpack

    out = tmp_path_factory.mktemp("shipped") / "synfer-mini"
    unpack(open_bundle(), out)
    return out


def built(checkpoint: Path, out: Path) -> Bundle:
    from synfer_rt.export.build.whole_bundle import Source, build_bundle

    return build_bundle(Source(checkpoint), out)


@pytest.fixture(scope="session")
def mini_bundle(mini_checkpoint: Path, once: Once) -> Bundle:
    return open_bundle(once("bundles/mini", lambda out: built(mini_checkpoint, out)))
