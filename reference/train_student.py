"""Distil synfer-mini: a student takes a few steps of one branch to where its teacher's steps lead.

    python -m reference.train_student --trajectories DIR --checkpoint DIR --out DIR

Trajectory distillation (progressive distillation, arXiv 2202.00512, without halving; guidance is
folded in as in arXiv 2210.03142). The teacher's trajectories have eight guided steps; the student
has `--steps` of them, each over an equal part. From the teacher's latents at the beginning of a
part it predicts the velocity with which one step of DDIM ends at the teacher's latents at the end
of that part. No images of renders take part.

The student shares what the conditioner holds (text encoder, AU adapter and the projections behind
it) with the teacher, and every tensor of more than LARGEST elements, which would be most of
its size. Both are the teacher's in the bundle, byte for byte.

Training resumes from `--out`. At its end `distilled_unet/`, the averaged weights, and
`distilled.json`, what they were distilled for, are written there, where `reference.assemble
--student` reads them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference import model, trajectories
from reference.trajectories import EVERY, STARTS, Trajectories
from synfer_rt.bundle import open_bundle

LARGEST = 140_000
"""Larger tensors stay the teacher's."""
DECAY = 0.999
"""Of the average of the weights."""
WARM_UP = 100
COOL_DOWN = 0.2
"""The last part of a training, in which the learning rate falls to zero."""
REPORT_SECONDS = 180.0
HELD_OUT = 64
"""Trajectories of each start, of the first chunk, on which the student is measured."""
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A student's step: from state `first` of a trajectory to state `last`, begun at `timestep`.

    `kept * latents + moved * velocity` are the latents at its end (DDIM in v-prediction, arXiv
    2202.00512, appendix D).
    """

    first: int
    last: int
    timestep: int
    kept: float
    moved: float


def parts(times: list[int], steps: int) -> list[Part]:
    """The `steps` steps of a student whose teacher visits the timesteps `times`."""
    alpha_bar = [*(float(model.new_scheduler().alphas_cumprod[t]) for t in times), 1.0]
    share = len(times) // steps
    found: list[Part] = []
    for begin in range(0, len(times), share):
        (signal, noise), (to_signal, to_noise) = (
            (alpha_bar[i] ** 0.5, (1 - alpha_bar[i]) ** 0.5) for i in (begin, begin + share)
        )
        kept = to_signal * signal + to_noise * noise
        moved = to_noise * signal - to_signal * noise
        first, last = begin // EVERY, (begin + share) // EVERY
        found.append(Part(first, last, times[begin], kept, moved))
    return found


def trained(student: model.Denoiser) -> dict[str, torch.nn.Parameter]:
    """The parameters that differ from the teacher's, by their name in the UNet."""
    return {
        name: parameter
        for name, parameter in student.unet.named_parameters()
        if parameter.numel() <= LARGEST and "to_v_ip" not in name and "attn2.to_out" not in name
    }


@dataclass(frozen=True)
class Batch:
    """Latents [B, C, h, w], timesteps [B], tokens [B, L], AUs [B, A] and the velocity to learn."""

    latents: Tensor
    timesteps: Tensor
    tokens: Tensor
    aus: Tensor
    velocity: Tensor


class Examples:
    """Batches of random parts of random trajectories."""

    def __init__(self, data: Mapping[str, Trajectories], ways: Mapping[str, list[Part]]) -> None:
        self._data, self._ways = data, ways
        self._counts = np.array([len(data[start].states) for start in STARTS])

    def draw(self, count: int, rng: np.random.Generator) -> Batch:
        """`count` examples."""
        share = rng.binomial(count, self._counts[0] / self._counts.sum())
        drawn = [
            self._drawn(s, n, rng) for s, n in zip(STARTS, (share, count - share), strict=True)
        ]
        latents, times, tokens, aus, velocity = map(np.concatenate, zip(*drawn, strict=True))
        return Batch(
            torch.from_numpy(latents),
            torch.from_numpy(times),
            torch.from_numpy(tokens.astype(np.int64)),
            torch.from_numpy(aus.astype(np.float32)),
            torch.from_numpy(velocity),
        )

    def _drawn(self, start: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        data, way = self._data[start], self._ways[start]
        rows = rng.integers(len(data.states), size=count)
        chosen = np.array([astuple(part) for part in way])[rng.integers(len(way), size=count)]
        first, last, times = chosen[:, :3].astype(np.int64).T
        kept, moved = chosen[:, 3:].astype(np.float32).T.reshape(2, -1, 1, 1, 1)
        latents = data.states[rows, first].astype(np.float32)
        ends = data.states[rows, last].astype(np.float32)
        return latents, times, data.tokens[rows], data.aus[rows], (ends - kept * latents) / moved


@torch.no_grad()
def deviation(student: model.Denoiser, data: Trajectories, way: list[Part]) -> float:
    """How far the student's clean latents are from the teacher's, root mean square."""
    tokens = torch.from_numpy(data.tokens[:HELD_OUT].astype(np.int64))
    aus = torch.from_numpy(data.aus[:HELD_OUT].astype(np.float32))
    states = torch.from_numpy(data.states[:HELD_OUT].astype(np.float32))
    latents = states[:, 0]
    for part in way:
        times = torch.full((len(latents),), part.timestep)
        velocity = student(latents, times, tokens, aus)
        latents = part.kept * latents + part.moved * velocity
    return float((latents - states[:, -1]).square().mean().sqrt())


class Average:
    """The exponential moving average of a student's trained parameters."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self.values = {name: p.detach().clone() for name, p in parameters.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Take in the parameters after a step."""
        self.updates += 1
        decay = min(DECAY, (1 + self.updates) / (20 + self.updates))
        for name, parameter in parameters.items():
            self.values[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Exchange the average and the parameters."""
        for name, parameter in parameters.items():
            kept = parameter.clone()
            parameter.copy_(self.values[name])
            self.values[name] = kept


@dataclass
class Training:
    """A student, its optimizer and average, kept in a file."""

    student: model.Denoiser
    file: Path
    rate: float
    steps: int = 0

    def __post_init__(self) -> None:
        for parameter in self.student.parameters():
            parameter.requires_grad_(False)
        self.parameters = trained(self.student)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self.average = Average(self.parameters)
        self._optimizer = torch.optim.AdamW(
            list(self.parameters.values()), self.rate, (0.9, 0.99), weight_decay=0.0
        )
        if self.file.exists():
            self._read(torch.load(self.file, weights_only=True))

    def _read(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
        self.average.values = state["average"]
        self.average.updates = self.steps = int(state["steps"])
        self._optimizer.load_state_dict(state["optimizer"])

    def save(self) -> None:
        """Write the file."""
        part = self.file.with_suffix(".part")
        state = {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "average": self.average.values,
            "optimizer": self._optimizer.state_dict(),
            "steps": self.steps,
        }
        torch.save(state, part)
        part.replace(self.file)

    def step(self, batch: Batch, part_of_rate: float) -> float:
        """Learn from a batch; the loss, the mean squared error of the velocity."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate * part_of_rate * min(1.0, (self.steps + 1) / WARM_UP)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no fast backward on a CPU
            said = self.student(batch.latents, batch.timesteps, batch.tokens, batch.aus)
            loss = (said - batch.velocity).square().mean()
            self._optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self._optimizer.step()
        self.steps += 1
        self.average.update(self.parameters)
        return loss.item()


def parts_of_rate(minutes: float) -> Iterator[float]:
    """The learning rate's part at each step, until the minutes are over."""
    started, whole = time.monotonic(), 60 * minutes
    while (passed := time.monotonic() - started) < whole:
        yield min(1.0, (whole - passed) / (COOL_DOWN * whole))


def write(student: model.Denoiser, out: Path, settings: Mapping[str, object]) -> None:
    """Write the student's UNet in float16, and what it was distilled for."""
    state = {k: v for k, v in student.unet.state_dict().items() if "to_v_ip" not in k}
    bare = UNet2DConditionModel.from_config(student.unet.config)
    assert isinstance(bare, UNet2DConditionModel)
    bare.load_state_dict(state)
    out.mkdir(parents=True, exist_ok=True)
    bare.half().save_pretrained(out / "distilled_unet")
    (out / "distilled.json").write_text(json.dumps(settings, indent=2) + "\n")


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="The teacher's.")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="The teacher's.")
@click.option("--trajectories", "data", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=click.Choice(["1", "2", "4"]), default="2", show_default=True)
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--rate", default=3e-4, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(
    bundle: Path,
    checkpoint: Path,
    data: Path,
    out: Path,
    steps: str,
    minutes: float,
    batch: int,
    rate: float,
    threads: int,
) -> None:
    """Train a student."""
    out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    teacher = open_bundle(bundle)
    ways = {s: parts(trajectories.timesteps(teacher, s), int(steps)) for s in STARTS}
    files = sorted(data.glob("[0-9]*[0-9].npz"))
    held, examples = trajectories.read(files[:1]), Examples(trajectories.read(files[1:]), ways)
    student, _ = model.load(checkpoint)
    model.channels_last(student)
    training = Training(student, out / "student.pt", rate)

    def report() -> None:
        training.average.swap(training.parameters)
        far = {start: f"{deviation(student, held[start], ways[start]):.4f}" for start in STARTS}
        training.average.swap(training.parameters)
        LOG.info("step %d, deviation %s", training.steps, far)

    report()
    reported, losses = time.monotonic(), []
    for part in parts_of_rate(minutes):
        rng = np.random.default_rng((7, training.steps))
        losses.append(training.step(examples.draw(batch, rng), part))
        if time.monotonic() - reported > REPORT_SECONDS:
            seconds = time.monotonic() - reported
            LOG.info("%.1f/s, loss %.4f", batch * len(losses) / seconds, np.mean(losses))
            training.save()
            report()
            reported, losses = time.monotonic(), []
    training.save()
    report()
    training.average.swap(training.parameters)
    strengths = [teacher.defaults.layout_strength, 1.0]
    settings = {
        "solver": "ddim",
        "steps": int(steps),
        "guidance": teacher.defaults.guidance,
        "strengths": strengths,
    }
    write(student, out, settings)


if __name__ == "__main__":
    main()
