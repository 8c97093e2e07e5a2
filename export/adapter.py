"""AU adapters in SynFER's file layout (IP-Adapter's; He et al., arXiv 2410.09865).

Two groups: `image_proj` turns an AU vector into one token of the text encoder's width; `ip_adapter`
holds the key and value projections of that token for every cross-attention layer, numbered by the
place of its processor in the UNet's `attn_processors`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from synfer_rt.errors import UserError


@dataclass(frozen=True)
class AUAdapter:
    """One AU token: `token = proj_weight @ aus + proj_bias`, its value `to_v[i] @ token`.

    `proj_weight` [D, A] and `proj_bias` [D] in float32; `to_v` maps the index of an attention
    processor to [width, D]. The keys are not kept: attention over one key ignores them.
    """

    proj_weight: torch.Tensor
    proj_bias: torch.Tensor
    to_v: dict[int, torch.Tensor]

    @property
    def units(self) -> int:
        """A, the length of the AU vector."""
        return self.proj_weight.shape[1]


def read_adapter(path: Path, widths: Mapping[int, int], token_width: int) -> AUAdapter:
    """Read an adapter, a safetensors file or a torch pickle, told apart by content.

    `widths` maps the index of every cross-attention processor of the UNet to its inner width, and
    `token_width` is D. Raises UserError when the file is missing, cut short, of another kind, or
    does not fit the UNet.
    """
    if not path.is_file():
        raise UserError(f"There is no AU adapter {path}; give its file with --au-adapter.")
    tensors = {name: tensor.float() for name, tensor in _read_tensors(path).items()}
    expected = {"image_proj.proj.weight", "image_proj.proj.bias"}
    expected |= {f"ip_adapter.{i}.to_{kind}_ip.weight" for i in widths for kind in "kv"}
    if set(tensors) != expected:
        raise UserError(
            f"The AU adapter {path} does not fit this UNet: "
            f"it lacks {_some(expected - set(tensors))} and has besides "
            f"{_some(set(tensors) - expected)}; found are {_some(tensors)}, expected "
            f"{_some(expected)}; give the adapter that was trained with this checkpoint."
        )
    proj, bias = tensors["image_proj.proj.weight"], tensors["image_proj.proj.bias"]
    if proj.ndim != 2 or proj.shape[0] != token_width or bias.shape != (token_width,):
        raise UserError(
            f"The AU adapter {path} has image_proj.proj.weight {list(proj.shape)} and bias "
            f"{list(bias.shape)}; one AU token of this text encoder needs [{token_width}, AUs] "
            f"and [{token_width}]; give an adapter with one token of that width."
        )
    for i, width in widths.items():
        for kind in "kv":
            name = f"ip_adapter.{i}.to_{kind}_ip.weight"
            if tuple(tensors[name].shape) != (width, token_width):
                raise UserError(
                    f"The AU adapter {path} has {name} {list(tensors[name].shape)}; this UNet "
                    f"needs [{width}, {token_width}]; give the adapter trained with it."
                )
    return AUAdapter(proj, bias, {i: tensors[f"ip_adapter.{i}.to_v_ip.weight"] for i in widths})


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    with path.open("rb") as file:
        head = file.read(9)
        if head[:2] == b"PK" or head[:1] == b"\x80":
            file.seek(0)
            # torch chooses its reader by the name of the file unless it is given an open one.
            try:
                content = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:
                raise UserError(
                    f"The AU adapter {path} is a torch file that cannot be read as plain tensors "
                    f"({_first_line(error)}); fetch it again or save it as safetensors."
                ) from error
            return dict(_flatten(content, path))
    if head[8:] != b"{":
        raise UserError(
            f"The AU adapter {path} is neither a safetensors nor a torch file; "
            "give one of these with --au-adapter."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"The AU adapter {path} is not a whole safetensors file ({_first_line(error)}); "
            "fetch it again."
        ) from error


def _flatten(content: Any, path: Path, prefix: str = "") -> Iterable[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield prefix, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(value, path, f"{prefix}.{key}" if prefix else str(key))
    else:
        raise UserError(
            f"The AU adapter {path} holds a {type(content).__name__} at {prefix or 'its top'}; "
            "expected are the groups image_proj and ip_adapter of named tensors."
        )


def _some(names: Collection[str], limit: int = 8) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return (", ".join(listed[:limit]) or "nothing") + more


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
