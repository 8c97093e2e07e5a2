#!/usr/bin/env bash
# DPMSolverMultistepScheduler of diffusers 0.42.1 with solver_order 3, noise levels of Karras (or
# exponential, or even in log-SNR) and final_sigmas_type "sigma_min": the levels already end in
# sigma_min, so the last step has no length, and the third order divides by it. From 15 steps on all
# latents are NaN, without an error (below, the last step is of first order); a pipeline then writes
# black images. Order 2 is right. It hurts who takes the third order, as is recommended for
# unconditional sampling.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/env"
"$scratch/env/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 numpy
"$scratch/env/bin/python" - <<'PYTHON' 2> /dev/null
import sys

import diffusers
import torch

print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")


def sampled(order, steps, final):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        solver_order=order,
        use_karras_sigmas=True,
        final_sigmas_type=final,
    )
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        latents = scheduler.step(0.5 * latents, timestep, latents).prev_sample
    return latents


seen = {}
for case in ((3, 20, "sigma_min"), (3, 20, "zero"), (3, 14, "sigma_min"), (2, 20, "sigma_min")):
    seen[case] = bool(sampled(*case).isfinite().all())
    print(f"order {case[0]}, {case[1]} steps, final {case[2]}: finite {seen[case]}")
sys.exit(list(seen.values()) != [False, True, True, True])
PYTHON
