"""Samples in memory."""

from __future__ import annotations

from typing import Unpack

from synfer_rt.api.session import Session
from synfer_rt.jobs.progress import OnProgress
from synfer_rt.jobs.sample import make_samples
from synfer_rt.jobs.sample_settings import DEFAULTS, SampleSettings, make_run
from synfer_rt.sampling.samples import Samples
from synfer_rt.signatures import spelled_out


class Sampling(Session):
    """`Model.sample`."""

    @spelled_out(SampleSettings, DEFAULTS)
    def sample(
        self,
        *,
        count: int = 8,
        batch: int = 256,
        on_progress: OnProgress | None = None,
        **settings: Unpack[SampleSettings],
    ) -> Samples:
        """Make samples in memory: `image` uint8 [H, W, 3], `label`, `probabilities`, `accepted`, …

        The result is a list, which a notebook shows as pictures.

        `count` images are made, `batch` at a time, which changes no image. The same seed and
        settings make the same images as `write`. The settings; None means the bundle's default:

        - `labels`: expressions, which take turns: "all", or a list such as ["happy", "sad"].
        - `prompt`: one prompt for all images; by default a sentence is drawn for each.
          `negative_prompt`: what the images should not show.
        - `aus`: intensities of action units, 0 to 1: {"AU12": 0.8}; by default drawn for each
          label. `au_scale`: their strength, -1000 to 1000.
        - `quality`: "fast" takes few steps of the bundle's distilled denoiser, "best" follows every
          setting. By default it is the bundle's, and "best" for settings that "fast" cannot follow.
        - `steps`, 1 or more, and `solver`: ddim, euler, dpmpp-2m, dpmpp-3m or unipc, or, with
          fresh noise in each step, euler-ancestral, dpmpp-sde, lcm or tcd. `timesteps`: those
          that the solver visits, such as [999, 749, 499, 249], instead of `steps`. `eta`: the
          share of fresh noise of tcd, 0 to 1, by default 0.3.
        - `guidance`: the scale of classifier-free guidance, 0 to 1000; 1 or less is none.
          `guidance_interval`: (low, high), the noise levels in which it acts; by default in all.
        - `layout`: "bank" starts from a neutral face of the bundle, "none" from noise.
          `layout_strength`: how much of a start face is made anew, above 0, at most 1.
        - `layout_from`: starts from photos, in a directory, a file or any dataset that `label`
          reads (`input_format`, `label_scheme`, `split`); each shows every label, or with
          `keep_label` its own, with its caption as the prompt. `aus_from`: "photo", "reader" or
          "prototype". `inversion`: "predictor-corrector", or "fixed-point" as in release 0.1.
          `align`, `face` and `face_detector`: find and align the photos' faces, as in `label`.
        - `cache_every`: N computes the UNet's deep part only in every N-th guided step, for a
          bundle that was built with `--cache-depth`; 1, the default, in every step.
        - `size`: (height, width) in pixels, for a bundle of free sizes.
        - `semantic_guidance`: how far a classifier's gradient moves an image at each step, 0 or
          more. `semantic_form`: latent, text-latent or text. `semantic_start`: the part of the
          steps before guidance begins, from 0 to below 1. `semantic_every`: 1 guides every step
          from there on, N every N-th.
        - `seed`: 0 to 2^63 - 1.
        - `count_accepted`: make images until each class has `count` accepted ones, or `budget`
          images are made, by default 10 times those wanted.
        - `accept_rate`: accept the most confident part of each class, above 0, at most 1.
          `threshold`: accept from this confidence on, 0 to 1. By default an image is accepted if
          the vote and most annotators see the requested label.
        - `calibration`: a file of `calibrate`; probabilities are then calibrated, and each sample
          has a label set of `coverage`, 0 to 1, by default 0.9.

        `on_progress` is called after each step. Raises UserError for a value that does not fit.
        """
        run = make_run(self.bundle, count=count, **settings)
        return make_samples(run, self._loaded(run.bundle, self.backend), batch, on_progress)
