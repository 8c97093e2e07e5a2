"""Schedules hold the numbers of diffusers' schedulers."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import DDIMScheduler

from synfer_rt.diffusion.schedule import BETA_SCHEDULES, Schedule, space_sigmas
from synfer_rt.errors import UserError

FIELDS = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "rescale_zero_terminal_snr": False,
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}


def diffusers_alphas_cumprod(fields: dict) -> np.ndarray:
    scheduler = DDIMScheduler(
        num_train_timesteps=fields["num_train_timesteps"],
        beta_schedule=fields["beta_schedule"],
        beta_start=fields["beta_start"],
        beta_end=fields["beta_end"],
        rescale_betas_zero_snr=fields["rescale_zero_terminal_snr"],
    )
    return scheduler.alphas_cumprod.double().numpy()


@pytest.mark.parametrize("timesteps", [1000, 250, 7])
@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_alphas_cumprod_are_those_of_diffusers_to_the_last_bit(name: str, timesteps: int) -> None:
    fields = FIELDS | {"beta_schedule": name, "num_train_timesteps": timesteps}
    ours = Schedule.from_manifest(fields).alphas_cumprod
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(ours, diffusers_alphas_cumprod(fields))


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_rescaled_alphas_cumprod_are_those_of_diffusers(name: str) -> None:
    # torch's float32 square root is not rounded correctly on every CPU, so the last bit differs.
    fields = FIELDS | {"beta_schedule": name, "rescale_zero_terminal_snr": True}
    ours = Schedule.from_manifest(fields).alphas_cumprod
    np.testing.assert_allclose(ours, diffusers_alphas_cumprod(fields), rtol=1e-5, atol=5e-7)


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_a_rescaled_schedule_ends_in_nothing_but_noise(name: str) -> None:
    fields = FIELDS | {"beta_schedule": name, "rescale_zero_terminal_snr": True}
    assert Schedule.from_manifest(fields).alphas_cumprod[-1] == 0.0


def test_a_missing_field_is_named() -> None:
    fields = {name: value for name, value in FIELDS.items() if name != "beta_end"}
    with pytest.raises(UserError, match="lacks 'beta_end'"):
        Schedule.from_manifest(fields)


def test_an_unknown_beta_schedule_is_refused() -> None:
    with pytest.raises(UserError, match=r"'quadratic'; known are linear, scaled_linear"):
        Schedule.from_manifest(FIELDS | {"beta_schedule": "quadratic"})


def test_an_unknown_spacing_is_refused() -> None:
    with pytest.raises(UserError, match=r"'karras'; known are leading, linspace, trailing"):
        Schedule.from_manifest(FIELDS | {"timestep_spacing": "karras"})


def test_betas_may_be_given_one_by_one() -> None:
    """alpha_bar is the product of 1 - beta (DDPM, arXiv 2006.11239, eq. 4)."""
    betas = np.linspace(0.001, 0.03, 50) ** 1.5
    fields = FIELDS | {"num_train_timesteps": 50, "trained_betas": betas.tolist()}
    found = Schedule.from_manifest(fields).alphas_cumprod
    np.testing.assert_allclose(found, np.cumprod(1 - betas), rtol=1e-6)


def test_karras_levels_are_even_in_the_seventh_root() -> None:
    sigmas = space_sigmas("karras", 80.0, 0.002, 5)
    wanted = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(5)]
    np.testing.assert_allclose(sigmas, wanted, rtol=1e-12)


@pytest.mark.parametrize("spacing", ["exponential", "lu"])
def test_exponential_levels_have_one_ratio(spacing: str) -> None:
    np.testing.assert_allclose(space_sigmas(spacing, 16.0, 1.0, 5), [16, 8, 4, 2, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sigma_spacing": "beta"}, "sigma spacing 'beta'; known are karras, exponential, lu"),
        ({"final_sigmas_type": "one"}, "final_sigmas_type 'one'; known are zero, sigma_min"),
        ({"sigma_min": 0}, "sigma_min must be above 0"),
        ({"sigma_min": 2, "sigma_max": 1}, "sigma_min must be above 0"),
        ({"sigma_max": float("nan")}, "sigma_min must be above 0"),
    ],
)
def test_noise_levels_that_are_none_are_refused(fields: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Schedule.from_manifest(FIELDS | fields)
