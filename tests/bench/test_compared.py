"""What `compare` can name, and the environments that peers need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.bench import environments
from synfer_rt.bench.compared import FOREIGN, RELEASE, compared, refusal
from synfer_rt.bench.environments import Environment
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError

NAME = "optimum-onnx"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def silent(sentence: str) -> None:
    del sentence


def test_a_peer_that_is_not_set_up_says_how_to_set_it_up():
    with pytest.raises(UserError, match=r"optimum-onnx is not set up here; add `--set-up`"):
        compared(NAME, False, silent)


@pytest.mark.parametrize("name", ["optimum-intell", "synfer", "openvino"])
def test_an_unknown_system_is_refused_with_the_nearest(name: str):
    with pytest.raises(UserError, match=rf"unknown system '{name}'; the nearest is "):
        compared(name, True, silent)


def test_an_environment_is_made_once_and_named_by_what_is_in_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    called: list[list[str]] = []
    monkeypatch.setattr(environments, "_call", lambda name, command: called.append(command))
    said: list[str] = []
    system, where = compared(NAME, True, said.append)
    assert where is not None and system == NAME
    assert Path(where.python).is_relative_to(cache / "synfer-rt" / "bench")
    make, install = called
    assert make[1:3] == ["-m", "venv"]
    assert install[:4] == [where.python, "-m", "pip", "install"]
    assert set(FOREIGN[NAME].environment.requirements) <= set(install)
    assert len(said) == 1 and "Installing optimum-onnx" in said[0]
    assert compared(NAME, False, said.append) == (NAME, where) and len(called) == 2
    other = Environment(("optimum-onnx==9",), ())
    assert environments.python_of(NAME, other) is None


def test_an_environment_that_pip_could_not_fill_is_made_anew(monkeypatch: pytest.MonkeyPatch):
    def failing(name: str, command: list[str]) -> None:
        environments_made.append(command)
        if "pip" in command:
            raise UserError("pip failed")

    environments_made: list[list[str]] = []
    monkeypatch.setattr(environments, "_call", failing)
    for _ in range(2):
        with pytest.raises(UserError, match="pip failed"):
            compared(NAME, True, silent)
    assert len(environments_made) == 4
    with pytest.raises(UserError, match="not set up"):
        compared(NAME, False, silent)


def test_what_pip_says_becomes_a_sentence():
    code = (
        "import sys; print('note\\nERROR: No matching distribution found for x==1.', "
        "file=sys.stderr); sys.exit(1)"
    )
    with pytest.raises(UserError) as error:
        environments._call("x", [sys.executable, "-c", code])
    assert str(error.value).startswith(
        "x cannot be installed: No matching distribution found for x==1. Leave x out of `compare`"
    )


def test_packages_that_want_too_much_are_installed_alone(monkeypatch: pytest.MonkeyPatch):
    called: list[list[str]] = []
    monkeypatch.setattr(environments, "_call", lambda name, command: called.append(command))
    environments.make("x", Environment(("a==1",), (), alone=("b==2",)), silent)
    assert [command[4:] for command in called[1:]] == [
        ["--quiet", "a==1"],
        ["--quiet", "--no-deps", "b==2"],
    ]


def test_a_release_is_named_by_its_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environments, "_call", lambda name, command: None)
    system, where = compared("synfer-rt==0.1.0", True, silent)
    assert where is not None and (system, where.worker) == ("synfer-rt 0.1.0", RELEASE)


def test_an_installed_release_is_named_by_version_and_folder():
    system, where = compared(f"synfer-rt={sys.executable}", False, silent)
    assert where is not None and where.python == sys.executable
    assert system.startswith("synfer-rt 0.") and system.endswith(f"({Path(sys.prefix).name})")


@pytest.mark.parametrize("python", ["/no/such/python", "/", "", "/bin/false"])
def test_an_interpreter_without_synfer_rt_is_refused(python: str):
    with pytest.raises(UserError, match="is no Python that has synfer-rt installed; give"):
        compared(f"synfer-rt={python}", False, silent)


PLAIN: dict[str, Any] = {"class_embed_type": None, "num_class_embeds": None}


@pytest.mark.parametrize(
    ("config", "solver", "why"),
    [
        (PLAIN, "ddim", None),
        ({**PLAIN, "class_embed_type": "projection"}, "ddim", "has `class_embed_type`"),
        ({**PLAIN, "time_cond_proj_dim": 256}, "ddim", "has `time_cond_proj_dim`"),
        (PLAIN, "dpmpp-2m", "lacks the solver dpmpp-2m; give `--solver` ddim or euler"),
    ],
)
def test_a_peer_says_what_it_cannot_run(
    tiny_bundle: Bundle, config: dict[str, Any], solver: str, why: str | None
):
    found = refusal("openvino-genai", tiny_bundle, config, solver)
    assert found is None if why is None else why in str(found)
