"""A second build of a bundle: what it reuses, what it builds again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError
from synfer_rt.export.build.whole_bundle import Built, Options, Source, build_bundle
from tests.export.build.reuse import hashes, reused
from tests.export.tiny_checkpoint import save_classifier


def test_the_same_command_again_builds_nothing(
    mini: tuple[Source, Path], mini_bundle: Bundle
) -> None:
    bundle, again = reused(*mini)
    assert all(again.values()) and list(again) == list(mini_bundle.engines)
    assert hashes(bundle) == hashes(mini_bundle) and bundle.path == mini[1]


def test_another_classifier_builds_the_classifier_only(
    mini: tuple[Source, Path], mini_bundle: Bundle
) -> None:
    source, out = mini
    save_classifier(source.directory / "classifiers" / "small.onnx", 3, 8, opset=18)
    bundle, again = reused(source, out)
    assert [name for name, old in again.items() if not old] == ["classifier.small"]
    changed = {n for n, sha in hashes(bundle).items() if sha != hashes(mini_bundle)[n]}
    assert changed == {"classifier.small.onnx"}


def test_other_settings_build_nothing_but_are_in_the_manifest(mini: tuple[Source, Path]) -> None:
    source, out = mini
    settings = json.loads((source.directory / "synfer.json").read_text())
    settings["defaults"]["steps"] = 9
    (source.directory / "synfer.json").write_text(json.dumps(settings))
    (source.directory / "README.md").write_text("The model card.")
    bundle, again = reused(source, out)
    assert all(again.values()) and bundle.defaults.steps == 9
    assert bundle.manifest["files"]["README.md"]["bytes"] == len("The model card.")


def test_a_link_to_a_bundle_stays_one(mini: tuple[Source, Path], tmp_path: Path) -> None:
    source, out = mini
    link = tmp_path / "link"
    link.symlink_to(out)
    (source.directory / "README.md").write_text("The model card.")
    bundle, _ = reused(source, link)
    assert link.is_symlink() and bundle.path == out.resolve()
    assert (out / "README.md").read_text() == "The model card."


def test_a_classifier_that_is_gone_leaves_the_bundle(mini: tuple[Source, Path]) -> None:
    source, out = mini
    shutil.rmtree(source.directory / "classifiers")
    bundle, _ = reused(source, out)
    assert bundle.classifiers == () and not (out / "classifier.small.onnx").exists()


def test_an_altered_engine_is_built_again(mini: tuple[Source, Path], mini_bundle: Bundle) -> None:
    source, out = mini
    with (out / "classifier.small.onnx").open("ab") as file:
        file.write(b" ")
    bundle, again = reused(source, out)
    assert [name for name, old in again.items() if not old] == ["classifier.small"]
    assert hashes(bundle) == hashes(mini_bundle)


def test_an_interrupted_build_resumes(plain_checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Built] = []

    def interrupt(engine: Built) -> None:
        seen.append(engine)
        if len(seen) in (1, 2):
            raise KeyboardInterrupt

    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            build_bundle(Source(plain_checkpoint), out, report=interrupt)
        assert not out.exists()
    assert [(engine.name, engine.reused) for engine in seen] == [
        ("conditioner", False),
        ("conditioner", True),
    ]
    log = (tmp_path / "out.log").read_text()
    assert "KeyboardInterrupt" in log and "conditioner: reused" in log


def test_force_reuses_nothing_and_keeps_the_old_bundle_until_the_new_is_whole(
    mini: tuple[Source, Path],
) -> None:
    source, out = mini

    def interrupt(engine: Built) -> None:
        assert engine.name == "conditioner" and not engine.reused
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_bundle(source, out, Options(force=True), interrupt)
    assert len(open_bundle(out).engines) == 6


def test_a_reused_engine_must_meet_the_tolerance_too(mini: tuple[Source, Path]) -> None:
    with pytest.raises(UserError, match="differs from PyTorch"):
        build_bundle(*mini, Options(tolerance=1e-9))
    assert all(again for again in reused(*mini)[1].values())


@pytest.mark.slow
def test_engines_are_built_side_by_side(mini: tuple[Source, Path]) -> None:
    source, out = mini
    classifiers = source.directory / "classifiers"
    for name in ("small", "large"):
        save_classifier(classifiers / f"{name}.onnx", 3, 8, opset=18)
    shutil.copy(classifiers / "small.json", classifiers / "large.json")
    bundle, again = reused(source, out, Options(jobs=2))
    new = {name for name, old in again.items() if not old}
    assert new == {"classifier.small", "classifier.large"} == set(bundle.classifiers)
