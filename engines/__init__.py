"""The engines that ship with synfer-rt."""

from pathlib import Path


def default_bundle() -> Path:
    """The directory of the bundle `synfer-mini`, which is used when none is named.

    Bundles are directories of plain files that inference runtimes open (and map) by path, so the
    package is never run from a zip file, and a path beside this module is right in a wheel and in
    a clone.
    """
    return Path(__file__).resolve().parent / "synfer-mini"
