"""`synfer-rt sample` with steps of its user's choice."""

from __future__ import annotations

import json

import pytest

from synfer_rt.data.writers import read
from tests.commands.test_cli import refused


def test_a_guidance_interval_is_part_of_the_run(sample, branched_bundle, tmp_path):
    options = ("--count", "4", "--guidance-interval", "0.3:2.5")
    result = sample(*options, engines=branched_bundle.path)
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "__out__/run.json").read_text())
    assert settings["guidance_interval"] == [0.3, 2.5]
    assert {"denoiser", "denoiser.conditional"} <= settings["ran_on"].keys()
    samples = list(read(tmp_path / "out"))
    assert all(r["guidance_interval"] == {"low": 0.3, "high": 2.5} for r, _ in samples)
    for option, engines in (("2", {"denoiser"}), ("1", {"denoiser.conditional"})):
        out = tmp_path / option
        assert sample("--guidance", option, engines=branched_bundle.path, out=out).exit_code == 0
        ran_on = json.loads((tmp_path / f"__{option}__/run.json").read_text())["ran_on"]
        assert {name for name in ran_on if name.startswith("denoiser")} == engines
    plain = list(read(tmp_path / "2"))
    assert all(a != b for (_, a), (_, b) in zip(samples, plain, strict=False))
    said = refused(sample(*options[:-1], "0.3:", "--resume", engines=branched_bundle.path))
    assert "another guidance interval" in said


def test_given_timesteps_and_eta_are_part_of_the_run(sample, tmp_path):
    options = ("--count", "4", "--solver", "tcd", "--timesteps", "799, 399,99", "--eta", "0.5")
    options = (*options, "--layout", "none")
    result = sample(*options)
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "__out__/run.json").read_text())
    found = {name: settings[name] for name in ("solver", "steps", "timesteps", "eta")}
    assert found == {"solver": "tcd", "steps": 3, "timesteps": [799, 399, 99], "eta": 0.5}
    samples = list(read(tmp_path / "out"))
    for record, _ in samples:
        assert (record["steps"], record["timesteps"]) == (3, "799,399,99")
        assert record["eta"] == 0.5
    assert sample(*options, "--resume").exit_code == 0
    other = (*options[:5], "799,399,98", *options[6:])
    assert "another timesteps" in refused(sample(*other, "--resume"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--timesteps", "999,x"], "--timesteps must be whole numbers with commas between them"),
        (["--timesteps", ""], "999,749,499,249, got ''"),
        (["--timesteps", "1,2"], "--timesteps must decrease, such as 999, 749, 499, 249, got 1, 2"),
        (["--timesteps", "1000"], "--timesteps must lie from 0 to 999"),
        (["--timesteps", "899,1", "--steps", "3"], "--steps is 3, but there are 2 --timesteps"),
        (["--timesteps", "900", "--layout-strength", "0.9", "--layout", "bank"], "below 900"),
        (["--eta", "0.5"], "--eta is a setting of the solver tcd, not of"),
        (["--solver", "tcd", "--eta", "2"], "--eta must be from 0 to 1, got 2"),
    ],
)
def test_timesteps_and_an_eta_that_do_not_fit_are_refused(sample, options, words, tmp_path):
    assert words in refused(sample(*options))
    assert not (tmp_path / "out").exists()
