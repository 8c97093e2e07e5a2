"""Opening a bundle finds it and checks its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from synfer_rt import engines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError
from tests.damaged_bundles import change


def test_no_path_means_the_installed_bundle(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "default_bundle", lambda: tiny_bundle.path)
    assert open_bundle(None).bundle_hash == tiny_bundle.bundle_hash


def test_a_relative_path_holds_wherever_the_program_goes(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(copy.parent)
    bundle = open_bundle(copy.name)
    monkeypatch.chdir(tmp_path)
    assert len(bundle.layouts) == bundle.layout_count


def test_a_damaged_installed_bundle_is_cured_by_reinstalling(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "default_bundle", lambda: copy)
    (copy / "decoder.onnx").unlink()
    with pytest.raises(UserError, match="reinstall the package"):
        open_bundle(None)


def test_a_file_that_is_used_but_not_hashed_is_refused(copy: Path) -> None:
    change(copy, lambda fields: fields["files"].pop("tokenizer.json"))
    with pytest.raises(UserError, match=r"no hash of tokenizer.json"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["../stranger", "/etc/hostname"])
def test_a_path_outside_the_bundle_is_refused(copy: Path, name: str) -> None:
    (copy.parent / "stranger").write_text("not yours")
    change(copy, lambda fields: fields["files"].update({name: {"sha256": "", "bytes": 0}}))
    with pytest.raises(UserError, match=r"outside .*do not use this bundle"):
        open_bundle(copy)


def test_a_link_that_leaves_the_bundle_is_refused(copy: Path) -> None:
    outside = copy.parent / "decoder.onnx"
    shutil.move(copy / "decoder.onnx", outside)
    (copy / "decoder.onnx").symlink_to(outside)
    with pytest.raises(UserError, match="outside"):
        open_bundle(copy)
