"""A bundle takes its name when it is whole; until then the old one keeps it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.errors import UserError
from synfer_rt.export.build.hashes import sha256
from synfer_rt.export.build.staging import staging


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What stands for the old bundle of the model `old`."""
    out = tmp_path / "out"
    out.mkdir()
    write_manifest(out)
    return out


def write_manifest(out: Path, **fields: object) -> dict[str, object]:
    manifest = {"name": "old", "engines": {}, "files": {}, **fields}
    (out / "bundle.json").write_text(json.dumps(manifest))
    return manifest


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_new_bundle_takes_the_place_of_the_old_one(out: Path) -> None:
    with staging(out, "old", force=False) as place:
        (place.bundle / "new").touch()
        (place.bundle / "forgotten").touch()
        place.assemble({"new", "never made"})
        assert names(out) == ["bundle.json"]
    assert names(out) == ["new"] and names(out.parent) == ["out", "out.log"]


def test_the_old_bundle_comes_back_when_the_new_one_cannot_take_its_place(out: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"), staging(out, "old", False) as place:
        place.assemble(set()).rmdir()
    assert names(out) == ["bundle.json"] and names(out.parent) == ["out", "out.log"]


def test_the_old_bundle_comes_back_after_a_kill_between_the_renames(out: Path) -> None:
    out.rename(out.parent / ".out.replaced")
    with staging(out, "old", force=False) as place:
        assert place.old is not None and place.old["name"] == "old"
        assert names(out) == ["bundle.json"]
        place.assemble(set())


def test_two_builds_of_one_bundle_are_refused(out: Path) -> None:
    if os.name != "posix":
        pytest.skip("locks are POSIX's")
    with staging(out, "old", False) as place:
        refused = pytest.raises(UserError, match=r"Another build is writing .*out\.log")
        with refused, staging(out, "old", False):
            pass
        place.assemble(set())


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"name": "new"}, "the bundle of new, not of old"),
        ({"source": {"sha256": {"unet": "1", "vae": "2"}}}, "another model called old"),
    ],
)
def test_another_bundle_is_replaced_by_force_only(
    out: Path, fields: dict[str, object], what: str
) -> None:
    write_manifest(out, **fields)
    with pytest.raises(UserError, match=f"{what}.*`force=True`"), staging(out, "old", False, {"3"}):
        pass
    with staging(out, "old", True, {"3"}) as place:
        assert place.old is None
        place.assemble(set())


def test_a_model_is_known_by_any_of_its_weights(out: Path) -> None:
    write_manifest(out, source={"sha256": {"unet": "1", "vae": "2"}})
    with staging(out, "old", False, {"3", "2"}) as place:
        assert place.old is not None
        place.assemble(set())


@pytest.mark.parametrize("text", ['{"name": "app", "files": ["src"]}', "[]", "{", "[" * 100_000])
def test_a_directory_that_is_no_bundle_is_never_touched(out: Path, text: str) -> None:
    (out / "bundle.json").write_text(text)
    (out / "src").mkdir()
    (out / "src" / "index.js").touch()
    for force in (False, True):
        with pytest.raises(UserError, match="is not a bundle"), staging(out, "old", force):
            pass
    assert names(out) == ["bundle.json", "src"] and names(out / "src") == ["index.js"]


def test_files_of_the_user_in_a_bundle_are_never_removed(out: Path) -> None:
    (out / "images").mkdir()
    (out / "images" / "0.png").touch()
    for force in (False, True):
        refused = pytest.raises(
            UserError, match=r"not part of its bundle, such as images/0\.png; move"
        )
        with refused, staging(out, "old", force):
            pass
    assert names(out / "images") == ["0.png"]


def test_a_mount_point_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: path == out)
    with pytest.raises(UserError, match="mount point"), staging(out, "old", False):
        pass


@pytest.fixture
def engine(out: Path) -> dict[str, str]:
    """The entry of an engine of the old bundle."""
    (out / "x.plan").write_text("old weights")
    files = {"x.plan": {"sha256": sha256(out / "x.plan")}}
    write_manifest(out, files=files)
    return {"file": "x.plan", "build_key": "k"}


def test_an_engine_is_inherited_by_its_key_and_only_whole(
    out: Path, engine: dict[str, str]
) -> None:
    with staging(out, "old", False) as place:
        assert place.inherited(engine, "another key") is None
        assert place.inherited(engine, "k") == engine
        assert (place.bundle / "x.plan").read_text() == "old weights"
        (out / "x.plan").unlink()
        (out / "x.plan").write_text("altered")
        assert place.inherited(engine, "k") is None
        place.assemble(set())


def test_a_new_engine_is_not_written_into_the_file_of_the_old_one(
    out: Path, engine: dict[str, str]
) -> None:
    with pytest.raises(KeyboardInterrupt), staging(out, "old", False) as place:
        assert place.inherited(engine, "k")
        place.discard("x", "x.plan")
        (place.bundle / "x.plan").write_text("new")
        raise KeyboardInterrupt
    assert (out / "x.plan").read_text() == "old weights"


def test_what_is_finished_outlives_an_interrupted_build(out: Path) -> None:
    entry = {"file": "x.plan", "build_key": "k"}
    with pytest.raises(KeyboardInterrupt), staging(out, "old", False) as place:
        (place.bundle / "x.plan").touch()
        place.record("x", entry)
        raise KeyboardInterrupt
    with staging(out, "old", False) as place:
        assert place.recorded("x", "k") == entry
        assert place.recorded("x", "another key") is None
        place.assemble({"x.plan"})
