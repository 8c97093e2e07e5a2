"""The environments that peers run in: a virtual environment for each, in the user's cache.

They are made on request. pip takes the packages from where it is set up to look for them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from synfer_rt.backends.caches import cache_home
from synfer_rt.errors import UserError

_READY = "ready"
"""The file that says that everything is installed."""


@dataclass(frozen=True)
class Environment:
    """What a peer needs installed, beside a Python of this version.

    `requirements` are installed with all that they need, `alone` are packages installed without.
    `versions` are the packages whose versions a result names.
    """

    requirements: tuple[str, ...]
    versions: tuple[str, ...]
    alone: tuple[str, ...] = ()


def python_of(name: str, environment: Environment) -> Path | None:
    """The interpreter of the environment of the peer `name`; None if it was not made yet."""
    folder = _folder(name, environment)
    return _python(folder) if (folder / _READY).is_file() else None


def make(name: str, environment: Environment, remark: Callable[[str], None]) -> Path:
    """The interpreter of the environment of the peer `name`, which is made if it is not there.

    Raises UserError if pip cannot install something; the next call then begins anew.
    """
    there = python_of(name, environment)
    if there is not None:
        return there
    folder = _folder(name, environment)
    remark(f"Installing {' '.join((*environment.requirements, *environment.alone))} in {folder}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _call(name, [sys.executable, "-m", "venv", str(folder)])
        _install(name, folder, environment.requirements)
        _install(name, folder, ("--no-deps", *environment.alone) if environment.alone else ())
        (folder / _READY).touch()
    except OSError as error:
        raise UserError(
            f"The environment of {name} cannot be made in {folder} ({error.strerror}); set "
            "XDG_CACHE_HOME to a directory that is yours and has space."
        ) from None
    return _python(folder)


def _folder(name: str, environment: Environment) -> Path:
    """Another one for other requirements and for another Python."""
    content = repr((sys.version_info[:2], environment.requirements, environment.alone))
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return cache_home() / "bench" / f"{name}-{digest}"


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _install(name: str, folder: Path, requirements: Sequence[str]) -> None:
    if requirements:
        _call(name, [str(_python(folder)), "-m", "pip", "install", "--quiet", *requirements])


def _call(name: str, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        error = next((line for line in said if line.startswith("ERROR")), said[-1] if said else "")
        raise UserError(
            f"{name} cannot be installed: {error.removeprefix('ERROR:').strip().rstrip('.')}. "
            f"Leave {name} out of `compare`, or tell pip where to find it."
        )
