"""How far a training is: its settings and its state, from which the same command goes on.

Both lie in the training's own folder: training.json is written before anything else, and
state.safetensors after every epoch, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from synfer_rt.data.writers.atomic import write_beside_others
from synfer_rt.errors import UserError
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.sentences import first_line
from synfer_rt.export.training.cache import writing

_SETTINGS, _STATE = "training.json", "state.safetensors"
_NETWORK, _OPTIMIZER = "network", "optimizer"


@dataclass(frozen=True)
class Place:
    """Where a training's files are.

    The network is written into `out`; `own` has the training's settings and state, and `work` what
    is computed once and may serve several trainings.
    """

    out: Path
    own: Path
    work: Path


def is_begun(folder: Path) -> bool:
    """Whether a training was begun in its own folder."""
    return (folder / _SETTINGS).is_file()


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Begin the training of these settings in `folder`, or go on with it.

    `settings` are JSON values by the names of arguments. Raises UserError if a training of other
    settings was begun there.
    """
    file = folder / _SETTINGS
    if not file.exists():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_beside_others(file, (json.dumps(settings, indent=2) + "\n").encode(), folder)
        return
    begun = read_json(file, "remove the folder to begin again")
    for name, value in settings.items():
        if begun.get(name) != value:
            raise UserError(
                f"The training in {folder} was begun with {_written(name, begun.get(name))}, and "
                f"this has {_written(name, value)}; go on with its settings, choose another `out`, "
                "or remove that folder."
            )


def _written(name: str, value: Any) -> str:
    """A setting as a message has it; a hash tells nobody anything."""
    if isinstance(value, str) and len(value) == 64:
        return f"the {name} of hash {value[:8]}"
    return f"`{name}={value!r}`"


def is_finished(folder: Path, epochs: int) -> bool:
    """Whether the training in `folder` has done its `epochs`.

    Raises UserError if it has done more, and as `restore` does.
    """
    file = folder / _STATE
    if not file.exists():
        return False
    with _opened(file) as state:
        done = int((state.metadata() or {})["epochs"])
    if done > epochs:
        raise UserError(
            f"The training in {folder} has done {done} epochs already; ask for as many or more "
            "with `epochs`, or remove the folder to begin again."
        )
    return done == epochs


def restore(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put a network and its optimizer into the state in `folder`; the epochs that are done.

    Raises UserError for a file that cannot be read or does not fit.
    """
    file = folder / _STATE
    if not file.exists():
        return 0
    with _opened(file) as state:
        tensors = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118
        epochs = int((state.metadata() or {})["epochs"])
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == _NETWORK:
            weights[rest] = tensor
        else:
            number, _, moment = rest.partition(".")
            moments.setdefault(int(number), {})[moment] = tensor
    try:
        network.load_state_dict(weights)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (RuntimeError, ValueError) as error:
        raise _unreadable(file, error) from error
    return epochs


def keep(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    """Write the state after `epochs` epochs. Raises UserError where it cannot be written."""
    tensors = {f"{_NETWORK}.{name}": x for name, x in network.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}.{number}.{name}": x for name, x in moments.items()}
    content = save(
        {name: x.cpu().contiguous() for name, x in tensors.items()}, {"epochs": str(epochs)}
    )
    with writing(folder):
        write_beside_others(folder / _STATE, content, folder)


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(
        f"{file} does not hold the state of this training ({first_line(error)}); remove it to "
        "begin again."
    )
