"""A run goes on with the bundle, on the backend and in the precision it was begun in."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from synfer_rt.backends import openvino, status
from synfer_rt.backends.computation import FIELDS, computation
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.label_table import begun_with, settings_file
from synfer_rt.data.writers import FORMATS, read, run_file
from synfer_rt.jobs.progress import Progress
from tests.commands.test_cli import refused
from tests.former_release import as_written_before

needs_openvino = pytest.mark.skipif(not status("openvino-cpu").works, reason="needs openvino")
CPU, OPENVINO = "onnxruntime-cpu", "openvino-cpu"


class Command:
    """`sample` into one directory, stopped in its middle or not."""

    def __init__(self, engines: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engines, self.out, self._patches = engines, out, monkeypatch

    def __call__(self, *options: object) -> Result:
        words = ["sample", "--bundle", self.engines, "--out", self.out, "--threads", 1]
        words += ["--count", 12, "--batch", 4, *options]
        return CliRunner().invoke(main, list(map(str, words)))

    def begin(self, backend: str) -> None:
        with self._patches.context() as patch:
            patch.setattr("synfer_rt.commands.progress.ProgressBar.__call__", stop)
            result = self("--backend", backend)
        assert result.exit_code == 130 and "--resume" in result.output
        assert 0 < len(self.lines()) < 12

    def lines(self) -> list[dict[str, Any]]:
        text = (run_file.folder(self.out) / "metadata.jsonl.partial").read_text()
        return [json.loads(line) for line in text.splitlines()]

    @property
    def settings(self) -> dict[str, Any]:
        return run_file.load(self.out)

    def edit(self, **changes: Any) -> None:
        path = run_file.path(self.out)
        fields = {**self.settings, **changes}
        path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))

    def backends(self) -> list[str]:
        return [record["backend"] for record, _ in read(self.out)]


def stop(bar: object, progress: Progress) -> None:
    if progress.done > 8:
        raise KeyboardInterrupt


@pytest.fixture
def sample(tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    engines = shutil.copytree(tiny_bundle_path, tmp_path / "bundle")
    return Command(engines, tmp_path / "out", monkeypatch)


def test_a_run_goes_on_whatever_its_engines_ran_on_before(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Command(tiny_bundle_path, tmp_path / "out", monkeypatch)
    command.begin(CPU)
    command.edit(ran_on={"decoder": {"backend": "elsewhere", "file": "x.onnx"}})
    result = command("--backend", CPU, "--resume")
    assert result.exit_code == 0, result.output


def test_a_run_says_where_and_how_it_is_computed(sample: Command) -> None:
    sample.begin(CPU)
    assert {name: sample.settings[name] for name in FIELDS} == {
        "backend": CPU,
        "precision": "fp32",
        "runtime": f"onnxruntime {metadata.version('onnxruntime')}",
        "device": "cpu",
        "elsewhere": [],
    }
    assert {line["backend"] for line in sample.lines()} == {CPU}


@needs_openvino
@pytest.mark.parametrize("bfloat16", [True, False])
def test_openvino_says_its_precision(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, bfloat16: bool
) -> None:
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: bfloat16)
    found = computation(tiny_bundle, OPENVINO)
    assert found.precision == ("bf16" if bfloat16 else "fp32")
    assert found.runtime == f"openvino {metadata.version('openvino')}"


@needs_openvino
def test_engines_that_run_elsewhere_are_named(tiny_bundle: Bundle) -> None:
    spec = tiny_bundle.engines["classifier.small"]
    assert spec.parity_openvino is not None
    wrong = replace(spec, parity_openvino=replace(spec.parity_openvino, max_relative_error=0.5))
    bundle = replace(tiny_bundle, engines={**tiny_bundle.engines, wrong.name: wrong})
    assert computation(bundle, OPENVINO).elsewhere == ("classifier.small",)
    assert computation(bundle, OPENVINO).differs(computation(tiny_bundle, OPENVINO).settings())


@needs_openvino
def test_auto_goes_on_where_the_run_was_begun(sample: Command) -> None:
    sample.begin(CPU)
    result = sample("--resume")
    assert result.exit_code == 0, result.output
    assert f"{CPU} (as the run was begun)" in result.output
    assert sample.backends() == [CPU] * 12


@needs_openvino
def test_another_backend_is_refused_and_the_right_one_named(sample: Command) -> None:
    sample.begin(CPU)
    before = sample.lines()
    said = refused(sample("--resume", "--backend", OPENVINO))
    assert f"--backend {CPU}" in said and "--mix-backends" in said
    assert sample.lines() == before


@needs_openvino
def test_backends_are_mixed_where_that_is_asked_for(sample: Command) -> None:
    sample.begin(CPU)
    there = len(sample.lines())
    result = sample("--resume", "--mix-backends", "--backend", OPENVINO)
    assert result.exit_code == 0 and "Warning" in result.output
    assert sample.backends() == [CPU] * there + [OPENVINO] * (12 - there)
    assert sample.settings["backend"] == CPU


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "bf16"}, "precision bf16, here fp32"),
        ({"runtime": "onnxruntime 1.0.0"}, "runtime onnxruntime 1.0.0, here onnxruntime"),
        ({"elsewhere": ["decoder"]}, "elsewhere decoder, here none"),
    ],
)
def test_another_precision_or_version_is_refused(
    sample: Command, change: dict[str, Any], said: str
) -> None:
    sample.begin(CPU)
    sample.edit(**change)
    assert said in refused(sample("--resume"))
    assert sample("--resume", "--mix-backends").exit_code == 0


@pytest.mark.parametrize("format", FORMATS)
def test_of_a_whole_run_nothing_could_be_mixed(sample: Command, format: str) -> None:
    assert sample("--backend", CPU, "--format", format).exit_code == 0
    for change in ({"runtime": "onnxruntime 1.0.0"}, {"backend": "tensorrt-rtx-cuda"}):
        sample.edit(**change)
        result = sample("--resume", "--format", format)
        assert result.exit_code == 0 and "already holds all 12 images" in result.output
    lost = min(
        path for path in sample.out.rglob("*.*") if path.suffix in (".png", ".tar", ".parquet")
    )
    lost.unlink()
    assert "--mix-backends" in refused(sample("--resume", "--format", format))
    assert not lost.exists()


def test_a_backend_that_is_not_here_is_said(sample: Command) -> None:
    sample.begin(CPU)
    sample.edit(backend="tensorrt-rtx-cuda")
    said = refused(sample("--resume"))
    assert "was begun on tensorrt-rtx-cuda" in said and "--mix-backends" in said


def test_a_run_of_an_older_release_goes_on_with_a_warning(sample: Command) -> None:
    sample.begin(CPU)
    sample.edit(**dict.fromkeys(FIELDS))
    result = sample("--resume", "--backend", CPU)
    assert result.exit_code == 0
    assert "does not say on which backend it was begun" in result.output


def test_a_run_that_knows_the_bundle_by_its_former_hash_goes_on(sample: Command) -> None:
    sample.begin(CPU)
    former = open_bundle(sample.engines).former_hash
    assert former != sample.settings["bundle"]
    sample.edit(bundle=former)
    assert sample("--resume").exit_code == 0
    assert [record["bundle"] for record, _ in read(sample.out)][-1] == former
    sample.edit(bundle="0" * 64)
    assert "another bundle" in refused(sample("--resume"))


def test_a_run_begun_with_the_bundle_of_an_older_release_goes_on(
    voting_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = as_written_before(voting_bundle, tmp_path / "bundle").path
    run = Command(former, tmp_path / "out", monkeypatch)
    run.begin(CPU)
    run.engines = voting_bundle.path
    result = run("--resume")
    assert result.exit_code == 0, result.output
    records = [record for record, _ in read(run.out)]
    assert {record["bundle"] for record in records} == {voting_bundle.bundle_hash}
    assert len(records) == 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(3)
    for name, count in {"happy": 3, "sad": 1}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            picture = Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8))
            picture.save(tmp_path / f"photos/{name}/{i}.png")
    return tmp_path / "photos"


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.mark.parametrize("command", ["sample", "augment", "label"])
def test_nothing_is_mixed_where_nothing_is_resumed(
    tiny_bundle_path: Path, photos: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "out"
    words = [command, *([] if command == "sample" else [photos]), "--out", out]
    words += ["--bundle", tiny_bundle_path]
    assert "add --resume" in refused(invoke(*words, "--mix-backends"))
    assert not out.exists()


@pytest.mark.parametrize("command", ["augment", "label"])
def test_what_is_whole_is_so_on_any_backend(
    tiny_bundle_path: Path, photos: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / ("labels.jsonl" if command == "label" else "out")
    words = (command, photos, "--out", out, "--bundle", tiny_bundle_path, "--threads", 1)
    assert invoke(*words, "--backend", CPU).exit_code == 0
    settings = settings_file(out) if command == "label" else run_file.path(out)
    made = (out if command == "label" else out / "metadata.jsonl").read_bytes()
    begun = json.loads(settings.read_text()) | {"backend": "tensorrt-rtx-cuda", "runtime": "1"}
    settings.write_text(json.dumps(begun))
    result = invoke(*words, "--resume")
    assert result.exit_code == 0 and "Warning" not in result.output, result.output
    assert (out if command == "label" else out / "metadata.jsonl").read_bytes() == made


@pytest.mark.parametrize("kept", ["{}", '{"format": "imagefolder"}', '{"format": 1, "count": 2}'])
def test_settings_that_are_cut_short_are_one_sentence(
    tiny_bundle_path: Path, photos: Path, tmp_path: Path, kept: str
) -> None:
    for command in (["sample"], ["augment", photos]):
        out = tmp_path / command[0]
        words = [*command, "--out", out, "--bundle", tiny_bundle_path, "--threads", 1]
        assert invoke(*words, *(["--count", 2] if command == ["sample"] else [])).exit_code == 0
        run_file.path(out).write_text(kept)
        refused(invoke(*words, "--resume"))


@needs_openvino
def test_augment_goes_on_where_it_was_begun(
    tiny_bundle_path: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("augment", photos, "--out", out, "--bundle", tiny_bundle_path, "--threads", 1)
    assert invoke(*command, "--backend", CPU).exit_code == 0
    assert run_file.load(out)["backend"] == CPU
    made = [record["backend"] for record, _ in read(out)]
    assert made == [""] * 4 + [CPU] * 2
    (out / "happy" / "00000000.png").unlink()
    assert f"--backend {CPU}" in refused(invoke(*command, "--resume", "--backend", OPENVINO))
    assert invoke(*command, "--resume").exit_code == 0


@needs_openvino
def test_label_goes_on_where_it_was_begun(
    tiny_bundle_path: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.jsonl"
    command = ("label", photos, "--out", out, "--bundle", tiny_bundle_path, "--threads", 1)
    assert invoke(*command, "--backend", CPU).exit_code == 0
    before = out.read_bytes()
    journal = io.BytesIO(before).readlines()[:2]
    begun = begun_with(out)
    assert begun is not None and begun["precision"] == "fp32"
    settings = json.dumps(begun).encode()
    out.unlink()
    out.with_name("labels.jsonl.partial").write_bytes(settings + b"\n" + b"".join(journal))
    assert f"--backend {CPU}" in refused(invoke(*command, "--resume", "--backend", OPENVINO))
    assert invoke(*command, "--resume").exit_code == 0
    assert out.read_bytes() == before and begun_with(out) == begun
