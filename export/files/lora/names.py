"""The names of tensors in LoRA files: which layer of which model, and which part of its change.

One layer, for example `mid_block.attentions.0.proj_in` of the UNet, is called

- `unet.mid_block.attentions.0.proj_in` by diffusers (without `unet.` in files for one model),
- `base_model.model.mid_block.attentions.0.proj_in` by PEFT,
- `lora_unet_mid_block_attentions_0_proj_in` by kohya's scripts,
- `diffusion_model.middle_block.1.proj_in` or `lora_unet_middle_block_1_proj_in` in ComfyUI, after
  Stable Diffusion's original code (ldm_names.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

from synfer_rt.export.files.lora.ldm_names import ldm_names
from synfer_rt.export.files.tensor_files import unwrapped

_OLD_PREFIX = "text_model."
"""The prefix of the text encoder's names before transformers 5.24."""
_PREFIXES = {
    "unet": ("", "unet.", "diffusion_model.", "model.diffusion_model."),
    "text_encoder": (
        *("", "text_encoder."),
        *(
            f"{start}{encoder}.{inner}"
            for start, encoder, inner in product(
                ("", "text_encoders."), ("clip_l", "clip_h"), ("", "transformer.")
            )
        ),
        *("cond_stage_model.", "cond_stage_model.transformer."),
    ),
}
_FLAT_PREFIXES = {
    "unet": ("lora_unet_", "lycoris_"),
    "text_encoder": ("lora_te_", "lora_te1_", "lycoris_"),
}
_OLD_ENDS = {
    "to_out.0": "to_out",
    "q_proj": "to_q",
    "k_proj": "to_k",
    "v_proj": "to_v",
    "out_proj": "to_out",
}
"""The former names of attention layers, when LoRAs were attention processors in diffusers."""

_HOLDERS = re.compile(r"^(?:(?:model_|lora_)?state_dict)\.|(?<![^.])processor\.")
_MATRIX = r"(?:[._]lora|\.lora_linear_layer)[._]"
_ENDS = {
    rf"{_MATRIX}(?:A|down)\.weight": "down",
    rf"{_MATRIX}(?:B|up)\.weight": "up",
    rf"{_MATRIX}(?:B|up)\.bias": "bias_up",
    r"\.lora_mid\.weight": "mid",
    r"\.lora_embedding_A(?:\.weight)?": "embedding_down",
    r"\.lora_embedding_B(?:\.weight)?": "embedding_up",
    r"\.lora_magnitude_vector(?:\.weight)?": "magnitude",
    r"\.dora_scale": "dora_scale",
    r"(?:(?:[._]lora|\.lora_linear_layer)(?:[._](?:A|down)(?:\.weight)?)?)?\.alpha": "alpha",
    r"\.(?P<same>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))": "same",
    r"\.(?:diff|w_norm)": "diff",
    r"\.(?:diff_b|b_norm)": "bias_diff",
    r"(?:\.base_layer)?\.weight": "weight",
    r"(?:\.base_layer)?\.bias": "bias",
}
_NAMES = [(re.compile(rf"(?P<layer>.+?){end}"), what) for end, what in _ENDS.items()]

_FOREIGN = {
    r"lora_te[2-9]_|text_encoder_[23]\.|clip_g\.|t5xxl|double_blocks|transformer\.(?:single_)?"
    r"transformer_blocks|lora_unet_joint_blocks": "a LoRA of another kind of model, such as Stable "
    "Diffusion XL",
    r"[._]oft_|\.oft$": "OFT",
    r"boft_[RS]": "BOFT",
    r"\.[ab][12]\.weight$": "GLoRA",
    r"\.on_input$|ia3_l": "IA3",
    r"p?vera_lambda": "VeRA",
    r"lora_E$|lora_E\.|ranknum": "AdaLoRA",
    r"bone_|miss_block": "Bone",
    r"hra_u|fourierft_|randlora_|shira_|delora_|road_|vblora_|waveft_|c3a_|gralora_|hira_|adamss_|"
    r"tinylora_|psoft_|osf_|unilora_|frod_": "a method of PEFT that is no LoRA",
    r"emb_params|string_to_param|bundle_emb|^clip_[lgh]$|^<": "textual inversion",
}
"""Kinds of files that are not a LoRA of Stable Diffusion 1.x or 2.x, by a part of their names."""


class Layer(NamedTuple):
    """A layer: `part` is the model, unet or text_encoder, `name` the module's name in it."""

    part: str
    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The layer's names in all versions of transformers and diffusers."""
        bare = self.name.removeprefix(_OLD_PREFIX)
        return (bare, _OLD_PREFIX + bare) if self.part == "text_encoder" else (self.name,)


def layers_by_name(unet: Any, text_encoder: Any) -> dict[str, Layer]:
    """Every layer of both models, by each name that a LoRA file may use for it."""
    layers: dict[str, Layer] = {}
    originals = ldm_names(unet)
    for part, model in (("unet", unet), ("text_encoder", text_encoder)):
        for name, module in model.named_modules():
            if getattr(module, "weight", None) is None:
                continue
            layer = Layer(part, name)
            spelt = {*layer.names, originals.get(name, name)}
            spelt |= {old for known in spelt for old in _old(known)}
            for known, prefix in product(spelt, _PREFIXES[part]):
                layers.setdefault(prefix + known, layer)
            for known, prefix in product(spelt, _FLAT_PREFIXES[part]):
                layers.setdefault(prefix + known.replace(".", "_"), layer)
    return layers


def _old(name: str) -> Iterator[str]:
    for new, old in _OLD_ENDS.items():
        if name.endswith(f".{new}"):
            yield name.removesuffix(new) + old


def plain_name(name: str) -> str:
    """`name` without the prefixes of training frameworks and attention processors."""
    return _HOLDERS.sub("", unwrapped(_HOLDERS.sub("", name)))


def parse_name(name: str) -> tuple[str, str] | None:
    """The file's name of the layer, and the part of its change, such as `down`, `up` or `alpha`.

    None for an unknown name.
    """
    for pattern, what in _NAMES:
        if found := pattern.fullmatch(name):
            return found["layer"], found["same"] if what == "same" else what
    return None


def foreign_kind(names: Iterable[str]) -> tuple[str, str] | None:
    """The kind of a file that is no LoRA of these models, and a name that shows it; else None."""
    for pattern, kind in _FOREIGN.items():
        for name in names:
            if re.search(pattern, name):
                return kind, name
    return None
