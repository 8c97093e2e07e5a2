"""The commands that sample nothing, and what all commands share."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from synfer_rt import __version__, backends
from synfer_rt.backends.driver import Gpu
from synfer_rt.bundle import open_bundle
from synfer_rt.commands.cli import main
from tests import tiny_bundle as tiny


def refused(result):
    """The one sentence of a refusal."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    *_, last = result.output.strip().splitlines()
    assert last.startswith("Error: ") and last.endswith("."), result.output
    assert "Traceback" not in result.output
    return last


def test_inspect_prints_the_bundle(tiny_bundle_path):
    result = CliRunner().invoke(main, ["inspect", str(tiny_bundle_path)])
    assert result.exit_code == 0, result.output
    for said in ("synfer-tiny", "Apache-2.0", "denoiser", "fp32", "Bx4x8x8", "scaled_linear"):
        assert said in result.output


def test_inspect_prints_plans(tiny_bundle_path, tmp_path):
    copy = open_bundle(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))
    tiny.add_plans(copy, version="1.7.1")
    said = " ".join(CliRunner().invoke(main, ["inspect", str(tmp_path / "copy")]).output.split())
    assert "tensorrt-rtx 1.7.1 for sm" in said and "denoiser" in said


def test_inspect_gives_json(tiny_bundle_path, tiny_bundle):
    result = CliRunner().invoke(main, ["inspect", "--json", str(tiny_bundle_path)])
    facts = json.loads(result.output)
    assert facts["bundle"] == tiny_bundle.bundle_hash
    assert facts["engines"] == tiny_bundle.manifest["engines"]


def test_inspect_of_what_is_no_bundle_is_one_sentence(tmp_path):
    assert "is not a bundle" in refused(CliRunner().invoke(main, ["inspect", str(tmp_path)]))


def test_doctor_names_every_backend_and_what_would_make_it_work(tiny_bundle_path):
    result = CliRunner().invoke(main, ["doctor", "--bundle", str(tiny_bundle_path)])
    assert result.exit_code == 0, result.output
    said = "".join(result.output.split())  # the table breaks its lines anywhere
    for backend in backends.statuses():
        assert backend.name in said
        assert backend.works or "".join(backend.remedy.split()) in said
    assert "issound" in said and "With--backendautoitrunson" in said
    assert "NVIDIAGPU" in said or "driverforCUDA" in said


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        (None, "CPU cores, no NVIDIA GPU\n"),
        (
            Gpu("NVIDIA H200", "sm90", "13.0"),
            "\nNVIDIA H200 (sm90), driver for CUDA 13.0: use onnxruntime-cuda or tensorrt-cuda; "
            "tensorrt-rtx-cuda has no code for it\n",
        ),
        (
            Gpu("NVIDIA B200", "sm100", "13.0"),
            "\nNVIDIA B200 (sm100), driver for CUDA 13.0: use tensorrt-cuda; tensorrt-rtx-cuda and "
            "onnxruntime-cuda have no code for it\n",
        ),
        (
            Gpu("NVIDIA L4", "sm89", "13.2"),
            "\nNVIDIA L4 (sm89), driver for CUDA 13.2: use tensorrt-rtx-cuda or onnxruntime-cuda "
            "or tensorrt-cuda\n",
        ),
    ],
)
def test_doctor_says_which_backends_are_for_the_gpu(tiny_bundle_path, monkeypatch, gpu, said):
    # Not in driver.py itself, since what works here is found out once for all tests.
    monkeypatch.setattr("synfer_rt.jobs.diagnosis.driver", SimpleNamespace(gpu=lambda: gpu))
    result = CliRunner().invoke(main, ["doctor", "--bundle", str(tiny_bundle_path)])
    assert said in result.output


def test_doctor_says_what_auto_never_takes(tiny_bundle_path, monkeypatch):
    def works(name):
        return backends.BackendStatus(name, True, "works", "")

    monkeypatch.setattr("synfer_rt.backends.probed", works)
    result = CliRunner().invoke(main, ["doctor", "--bundle", str(tiny_bundle_path)])
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert "never taken by auto" in lines["onnxruntime-tensorrt"]
    assert "never taken by auto" not in lines["onnxruntime-cuda"]


@pytest.mark.parametrize("command", ["label", "augment"])
def test_images_that_are_not_there_are_one_sentence(command, tmp_path):
    arguments = [command, str(tmp_path / "nowhere"), "--out", str(tmp_path / "out.jsonl")]
    assert "nowhere" in refused(CliRunner().invoke(main, arguments))
    assert not list(tmp_path.iterdir())


def test_doctor_fails_where_nothing_can_be_sampled(tmp_path):
    result = CliRunner().invoke(main, ["doctor", "--bundle", str(tmp_path)])
    assert result.exit_code == 1 and "is not a bundle" in result.output


def test_help_lists_every_command_without_importing_what_they_need():
    code = (
        "import sys, synfer_rt.commands.cli\n"
        "try: synfer_rt.commands.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnxruntime', 'rich', 'PIL', 'pyarrow', 'tokenizers'}\n"
        "heavy |= {'torch', 'diffusers', 'transformers', 'onnx', 'scipy'}\n"
        "print('imported', sorted(heavy & set(sys.modules)))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    commands = ("sample", "label", "augment", "build-engines", "bench", "inspect", "doctor")
    for command in commands:
        assert f"\n  {command} " in said
    assert said.endswith("imported []\n")


def test_a_run_imports_no_training_framework(tiny_bundle_path, tmp_path):
    code = (
        "import sys\n"
        "from synfer_rt.commands.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print('imported', sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, "sample", "--bundle", str(tiny_bundle_path)]
    command += ["--out", str(tmp_path / "out"), "--count", "4", "--threads", "1"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.stdout.endswith("imported []\n"), said.stderr


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "synfer_rt.export.cli":
                raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.delitem(sys.modules, "synfer_rt.export.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    said = refused(CliRunner().invoke(main, ["build-engines", "x", "--out", "y"]))
    assert (
        "build-engines needs the package torch" in said
        and "pip install '.[export]'` in the root of a clone" in said
    )


def test_version():
    assert __version__ in CliRunner().invoke(main, ["--version"]).output
