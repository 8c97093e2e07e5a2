"""The library names arguments, the command line its options."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from synfer_rt.bundle import open_bundle
from synfer_rt.commands import cli
from synfer_rt.commands.notes import note
from synfer_rt.commands.translation import in_options
from synfer_rt.errors import UserError


@click.command()
@click.argument("checkpoint")
@click.argument("images", nargs=-1, metavar="IMAGES...")
@click.option("--accept-rate", type=float)
@click.option("--layout", type=click.Choice(["bank", "none"]))
@click.option("--format", "format_")
@click.option("--target", "targets", multiple=True)
@click.option("--au", "aus", multiple=True)
@click.option("--labels")
@click.option("--size", metavar="HxW")
@click.option("--sizes", metavar="MIN:MAX")
@click.option("--prompt")
@click.option("--resume", is_flag=True)
@click.option("-n", "--count", type=int)
def command(**given):
    """Refuse what `given` says."""
    raise UserError("`accept_rate` must be above 0 and at most 1, got 3.")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("`accept_rate` must be above 0", "--accept-rate must be above 0"),
        ('noise with `layout="none"`', "noise with --layout none"),
        ("with `resume=True`", "with --resume"),
        ("leave out `aus`", "leave out --au"),
        ("`count=8` or `count`", "--count 8 or --count"),
        ("`format` alone", "--format alone"),
        ("`target`, `targets`", "--target, --target"),
        ('`targets=["onnx", "openvino"]`', "--target onnx --target openvino"),
        ('`aus={"AU12": 0.8, "AU6": 1}`', "--au AU12=0.8 --au AU6=1"),
        ('`labels=["happy", "sad"]`', "--labels happy,sad"),
        ("`size=(64, 96)`", "--size 64x96"),
        ("`sizes=(256, 768)`", "--sizes 256:768"),
        ('`prompt="an old man"`', "--prompt 'an old man'"),
        ('`layout="none", count=1`', "--layout none --count 1"),
        ("`layout=LAYOUT`", "--layout LAYOUT"),
        ("the `checkpoint`, `images`", "the CHECKPOINT, IMAGES..."),
    ],
)
def test_arguments_become_options(said, shown):
    assert in_options(said, command.params) == shown


@pytest.mark.parametrize(
    "said",
    [
        "`threads` must be 1 to 1024",  # no option of this command
        "`threads=1, count=2`",
        "`resume=False`",  # no spelling on the command line
        "`synfer-rt sample --count 1`",
        "`pip install .`",
        "`Sampler(count=1)`",
        "`count=`",
        "accept_rate, --accept-rate and resume=True",
        "`text` of `images.png`",
    ],
)
def test_all_else_stays(said):
    assert in_options(said, command.params) == said


def test_refusals_name_options_in_the_words_of_their_command(monkeypatch):
    monkeypatch.setattr(
        cli,
        "import_module",
        lambda name: __import__("types").SimpleNamespace(sample=command, augment=command),
    )
    for name in ("sample", "augment"):
        result = CliRunner().invoke(cli.main, [name, "checkpoint"])
        assert result.exit_code == 2
        assert result.stderr == "Error: --accept-rate must be above 0 and at most 1, got 3.\n"


@pytest.mark.parametrize("name", ["sample", "augment", "label", "bench", "build-engines"])
def test_the_name_of_an_argument_is_the_option_that_fills_it(name):
    if name == "build-engines":
        pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
    found = cli.main.get_command(click.Context(cli.main), name)
    assert found is not None and found.params
    options = found.params
    for option in options:
        shown = max(option.opts, key=len)
        if isinstance(option, click.Argument):
            shown = option.metavar or option.name.upper()
        assert in_options(f"`{option.name}`", options) == shown


def test_notes_name_options(capsys):
    with click.Context(command):
        note("Add `resume=True`.")
    note("Add `resume=True`.")
    assert capsys.readouterr().err == "Add --resume.\nAdd `resume=True`.\n"


def test_doctor_names_options(monkeypatch, tiny_bundle_path):
    def choose(**_):
        raise UserError("choose another with `bundle`.")

    monkeypatch.setattr("synfer_rt.backends.choose", choose)
    result = CliRunner().invoke(cli.main, ["doctor", "--bundle", str(tiny_bundle_path)])
    assert result.exit_code == 1
    assert "Nothing can be sampled: choose another with --bundle." in result.stdout


@pytest.mark.parametrize("option", ["--bundle", "--engines"])
def test_a_bundle_is_given_by_its_name_or_the_former_one(option, tiny_bundle_path):
    result = CliRunner().invoke(cli.main, ["doctor", f"{option}={tiny_bundle_path}"])
    assert f"({open_bundle(tiny_bundle_path).path})" in result.stdout


@pytest.mark.parametrize("name", ["augment", "bench", "doctor", "label", "sample"])
def test_only_the_new_name_is_in_the_help(name):
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert "--bundle" in result.stdout and "--engines" not in result.stdout
