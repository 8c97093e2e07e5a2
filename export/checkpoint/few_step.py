"""Models distilled to few steps: how they are recognised, and the settings that they need.

A LoRA's tensors do not say how to sample with it: LCM's and TCD's for Stable Diffusion 1.5 have the
same names, shapes and precision, and no metadata. A published file is recognised by its hash, and
any other by its name, or that of its folder where diffusers or PEFT chose the file's. `few_step`
overrides both. What was recognised, and by what, is said in a remark.

    lcm               latent-consistency/lcm-lora-sdv1-5 (arXiv 2311.05556)
    tcd               h1t/TCD-SD15-LoRA (arXiv 2402.19159)
    hyper-sd          ByteDance/Hyper-SD, one LoRA for each number of steps (arXiv 2404.13686)
    hyper-sd-cfg      its CFG-preserved LoRAs, which are guided as the model was before
    hyper-sd-unified  its one-step LoRA, which also takes more steps
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synfer_rt.errors import UserError, nearest
from synfer_rt.export.build.hashes import sha256
from synfer_rt.export.checkpoint.settings import model_name
from synfer_rt.export.files.lora.merge import Lora
from synfer_rt.export.networks.modules import EMBEDDED_GUIDANCE

NONE = "none"
"""The `few_step` of a model that is sampled like any other."""
_DDIM = {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing", "clip_sample": False}
_NAMES_OF_ALL = ("pytorch_lora_weights", "adapter_model")
"""The names, without suffix, that diffusers and PEFT give to every LoRA."""


@dataclass(frozen=True)
class FewStep:
    """How a distilled model is sampled.

    `kind` is a key of KINDS. `scheduler` has the settings that its makers change in
    scheduler_config.json. `steps` is None where it differs from LoRA to LoRA.
    """

    kind: str
    steps: int | None
    guidance: float
    scheduler: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return self.kind if self.steps is None else f"{self.kind}:{self.steps}"


KINDS: dict[str, FewStep] = {
    made.kind: made
    for made in (
        FewStep("lcm", 4, 1.0, {"_class_name": "LCMScheduler"}),
        FewStep("tcd", 4, 1.0, {"_class_name": "TCDScheduler"}),
        FewStep("hyper-sd", None, 1.0, _DDIM),
        FewStep("hyper-sd-cfg", None, 5.0, _DDIM),
        FewStep("hyper-sd-unified", 1, 1.0, {"_class_name": "TCDScheduler"}),
    )
}


_PUBLISHED = {
    "8f90d840e075ff588a58e22c6586e2ae9a6f7922996ee6649a7f01072333afe4": "lcm",
    "eaecb24a1cda4411eab67275b1d991071216ac93693e8fa0c9226c9df0386232": "tcd",
    "35cd8b7381d2b045962c742cd976b6629a0bc1d19e24d96eae855a1c3519681a": "tcd",
    "a04fd9a535c1e56d38f7590ee72a13fd5ca0409853b4fff021e5a9482cf1ca3b": "hyper-sd-unified",
    "2f26dcc1d883feb07557a552315baae2ca2a04ac08556b08a355a244547e8c3a": "hyper-sd:2",
    "c5dd058616461ed5053e2b14eec4dbe3fa0eea3b13688642f6d6c80ea2ba5958": "hyper-sd:4",
    "91fc3186236e956d64dbb4357f2e120c69b968b78af7d2db9884a5ca74d3cd13": "hyper-sd:8",
    "f6123d5b950d5250ab6c33600e27f4dcf71b3099ebf888685e01e9e8117ce482": "hyper-sd-cfg:8",
    "64b98437383537cd968fda6f87a05c33160ece9c79ff4757949a1e212ff78361": "hyper-sd-cfg:12",
}
"""What each published LoRA is, by the SHA-256 of its file: lcm-lora-sdv1-5, TCD-SD15-LoRA,
TCD-SD21-base-LoRA, then Hyper-SD15's for 1, 2, 4 and 8 steps and CFG-preserved for 8 and 12."""


def parse_few_step(text: str) -> FewStep | None:
    """`KIND` or `KIND:STEPS`, with a key of KINDS; None for NONE.

    Raises UserError for an unknown kind (naming the nearest), for a number of steps that is not a
    whole number of at least 1, and for a kind that needs one and has none.
    """
    kind, colon, number = text.strip().lower().partition(":")
    if kind == NONE and not colon:
        return None
    if kind not in KINDS:
        known = (*KINDS, NONE)
        raise UserError(
            f"Unknown `few_step` {text!r}; the nearest is {nearest(kind, known)} (known are "
            f"{', '.join(known)})."
        )
    found = KINDS[kind]
    if colon:
        if not (number.isascii() and number.isdecimal() and int(number) > 0):
            raise UserError(
                f"The steps of `few_step` must be a whole number of at least 1, got {text!r}; "
                f"write {kind}:4."
            )
        found = replace(found, steps=int(number))
    if found.steps is None:
        raise UserError(
            f"`few_step` {kind} needs the number of steps that the LoRA was made for; write "
            f"{kind}:8."
        )
    return found


@dataclass(frozen=True)
class Recognised:
    """A model of few steps: its `kind`, with the number of its steps, and what shows it."""

    kind: FewStep
    sign: str

    def remark(self, implied: Mapping[str, Any], own: Mapping[str, Any]) -> str:
        """What is said of it: the default settings that are `implied`.

        `own` are the defaults with those of synfer.json in front, which `implied` replaces.
        """
        replaced = " and ".join(name for name in implied if own[name] != implied[name])
        return (
            f"By {self.sign}, this is a few-step model of the kind {self.kind}: it is sampled with "
            f"the solver {implied['solver']}, {implied['steps']} steps and guidance "
            f"{implied['guidance']:g} by default"
            f"{f', not with the {replaced} of synfer.json' if replaced else ''}; `few_step` can "
            "name another kind, or none."
        )


def few_step_of(loras: Iterable[Lora], given: str | None) -> Recognised | None:
    """How the model with these `loras` is sampled; None if nothing says that it needs few steps.

    `given` is `few_step`, None to go by the LoRAs. A LoRA at scale 0 changes nothing. Raises
    UserError as parse_few_step, for a LoRA whose name leaves the number of steps open, and for
    LoRAs of several kinds.
    """
    if given is not None:
        kind = parse_few_step(given)
        return None if kind is None else Recognised(kind, "`few_step`")
    paths = [lora.path for lora in loras if lora.scale and lora.path.is_file()]
    found = {path: kind for path in paths if (kind := _published(path) or by_name(path))}
    if not found:
        return None
    (path, first), *others = found.items()
    for other, kind in others:
        if kind != first:
            raise UserError(
                f"The LoRA {path} is taken for one of {first}, and {other} for one of {kind}, "
                "which are sampled differently; leave one out, or say with `few_step` how to "
                "sample."
            )
    if first.steps is None:
        raise UserError(
            f"The LoRA {path} is taken for one of {first} by its name, which does not say for how "
            f'many steps; write `few_step="{first.kind}:8"`, or `few_step="none"` if it is not.'
        )
    return Recognised(first, f"the {'hash' if _published(path) else 'name'} of the LoRA {path}")


def defaults_of(recognised: Recognised | None, solver: str, embeds: bool) -> dict[str, Any]:
    """The default settings of a model as recognised, or else those that its scheduler implies.

    `solver` is the scheduler's, and `embeds` whether the UNet embeds guidance. Settings that follow
    from none of these are left out.
    """
    kind = KINDS.get(solver) if recognised is None else recognised.kind
    defaults: dict[str, Any] = {"solver": solver}
    if kind is not None:
        defaults |= {"steps": kind.steps, "guidance": kind.guidance}
    return defaults | ({"guidance": EMBEDDED_GUIDANCE} if embeds else {})


def _published(path: Path) -> FewStep | None:
    known = _PUBLISHED.get(sha256(path))
    return None if known is None else parse_few_step(known)


def by_name(path: Path) -> FewStep | None:
    """The kind that the name of a LoRA says; `steps` may still be None."""
    generic = path.name.startswith(_NAMES_OF_ALL)
    name = (model_name(path.parent) if generic else path.stem).lower()
    if re.search(r"(?<![a-z])hyper[-_ ]?sd(?![a-z])", name):
        steps = re.search(r"(?<!\d)(\d{1,2})[-_ ]?steps?(?![a-z])", name)
        number = int(steps[1]) if steps else None
        if _has_word(name, "cfg"):
            return replace(KINDS["hyper-sd-cfg"], steps=number)
        if number == 1:
            return KINDS["hyper-sd-unified"]
        return replace(KINDS["hyper-sd"], steps=number)
    return next((KINDS[word] for word in ("lcm", "tcd") if _has_word(name, word)), None)


def _has_word(name: str, word: str) -> bool:
    return re.search(rf"(?<![a-z]){word}(?:[-_ ]?lora)?(?![a-z])", name) is not None
