"""Building a bundle while noting which engines are reused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.bundle import Bundle
from synfer_rt.export.build.whole_bundle import Built, Options, Source, build_bundle


def reused(
    source: Source, out: Path, options: Options | None = None
) -> tuple[Bundle, dict[str, bool]]:
    """Build, and say of each engine and plan whether it was reused."""
    built: list[Built] = []
    bundle = build_bundle(source, out, options, built.append)
    return bundle, {engine.name: engine.reused for engine in built}


def hashes(bundle: Bundle) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in bundle.manifest["files"].items()}
