"""What `compare` can name: which system that is, where it runs, and what it cannot do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.bench import environments
from synfer_rt.bench.environments import Environment
from synfer_rt.bench.peers import PEERS
from synfer_rt.bench.systems import Compared
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError, nearest

RELEASE = "release"
"""The module of bench/workers that runs another release of synfer-rt."""
_RELEASE_VERSIONS = ("synfer-rt", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy")


@dataclass(frozen=True)
class Foreign:
    """A peer in an environment of its own, on the CPU.

    `module` of bench/workers runs it. `solvers` are those that it has, of the names in
    diffusion/solvers.py. `exports_for_itself` says that it converts checkpoints; otherwise it runs
    what optimum-intel converted, if `converted` does.
    """

    module: str
    environment: Environment
    solvers: tuple[str, ...]
    converted: bool = False


_TORCH = "torch==2.13.0"
_FOR_INTEL = Environment(
    requirements=(
        *("optimum==2.3.0", _TORCH, "diffusers==0.39.0", "transformers==5.5.4"),
        *("huggingface-hub==1.21.0", "nncf==3.4.0", "openvino==2026.4.1"),
        *("openvino-tokenizers==2026.4.1.0", "requests>=2.33,<3"),
    ),
    versions=("optimum-intel", "openvino", "diffusers", "torch"),
    # It asks for torchvision, which no text-to-image pipeline imports.
    alone=("optimum-intel==2.2.0",),
)
_ALL = ("ddim", "euler", "dpmpp-2m", "dpmpp-3m", "unipc")
FOREIGN: Mapping[str, Foreign] = {
    "optimum-intel": Foreign("pipelines", _FOR_INTEL, _ALL),
    "openvino-genai": Foreign(
        "text2image",
        Environment(
            ("openvino-genai==2026.4.1.0", "pillow"),
            ("openvino-genai", "openvino"),
        ),
        ("ddim", "euler"),
        converted=True,
    ),
    "optimum-onnx": Foreign(
        "pipelines",
        Environment(
            ("optimum-onnx[onnxruntime]==0.1.0", _TORCH, "diffusers==0.39.0", "pillow"),
            ("optimum-onnx", "onnxruntime", "diffusers", "torch"),
        ),
        _ALL,
    ),
}
"""The peers with environments of their own by the name that `compare` takes."""


def compared(name: str, set_up: bool, remark: Callable[[str], None]) -> tuple[str, Compared | None]:
    """The system that `compare` calls `name`: what results call it, and where it runs.

    None means this process's Python. With `set_up` its environment is made if need be.

    A name is a key of PEERS or FOREIGN, `synfer-rt==VERSION` for a published release, or
    `synfer-rt=PYTHON` for the release that the interpreter PYTHON has installed. Raises UserError
    for any other name, and for an environment that is missing or cannot be made.
    """
    if name in PEERS:
        return name, None
    if name in FOREIGN:
        peer = FOREIGN[name]
        python = _environment(name, peer.environment, set_up, remark)
        converter = (
            _environment("optimum-intel", _FOR_INTEL, set_up, remark) if peer.converted else None
        )
        return name, Compared(python, peer.module, peer.environment.versions, converter)
    if name.startswith("synfer-rt=="):
        environment = Environment((name,), _RELEASE_VERSIONS)
        python = _environment(name, environment, set_up, remark)
        return name.replace("==", " "), Compared(python, RELEASE, _RELEASE_VERSIONS)
    if name.startswith("synfer-rt="):
        return _installed(name.partition("=")[2])
    known = (*PEERS, *FOREIGN, "synfer-rt==VERSION", "synfer-rt=PYTHON")
    raise UserError(
        f"`compare` has the unknown system {name!r}; the nearest is {nearest(name, known)}."
    )


def _environment(
    name: str, environment: Environment, set_up: bool, remark: Callable[[str], None]
) -> str:
    there = (
        environments.make(name, environment, remark)
        if set_up
        else environments.python_of(name, environment)
    )
    if there is None:
        raise UserError(
            f"{name} is not set up here; add `--set-up` (`set_up=True`), which installs "
            f"{', '.join((*environment.requirements, *environment.alone))} in a virtual "
            "environment in the user's cache."
        )
    return str(there)


_ASK = (
    "import importlib.metadata, json, os, sys\n"
    "print(json.dumps([importlib.metadata.version('synfer-rt'), os.path.basename(sys.prefix)]))"
)


def _installed(python: str) -> tuple[str, Compared]:
    """The release that an interpreter has, called by its version and its environment's folder."""
    try:
        asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, timeout=60)
        version, folder = json.loads(asked.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise UserError(
            f"`compare` names {python!r}, which is no Python that has synfer-rt installed; give "
            "the interpreter of such an environment, such as synfer-rt=/path/to/bin/python."
        ) from None
    python = str(Path(python).absolute())
    return f"synfer-rt {version} ({folder})", Compared(python, RELEASE, _RELEASE_VERSIONS)


def refusal(name: str, bundle: Bundle, config: Mapping[str, Any], solver: str) -> str | None:
    """Why the peer `name`, a key of FOREIGN, cannot run the checkpoint of `bundle`; None if it can.

    `config` is that of the checkpoint's UNet.
    """
    embedded = ("class_embed_type", "num_class_embeds", "addition_embed_type", "time_cond_proj_dim")
    for field in embedded:
        if config.get(field) is not None:
            return (
                f"it runs plain Stable Diffusion alone, and the UNet of {bundle.name} has "
                f"`{field}`; `python -m synfer_rt.bench.random_checkpoint` makes a checkpoint "
                "that it can run"
            )
    if solver not in FOREIGN[name].solvers:
        return f"it lacks the solver {solver}; give `--solver` {' or '.join(FOREIGN[name].solvers)}"
    return None
