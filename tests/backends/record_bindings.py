"""Write down which names the Python bindings of TensorRT have: tensorrt_bindings.json.

    python tests/backends/record_bindings.py MODULE …

MODULE is `tensorrt_rtx`, `tensorrt`, or `tensorrt_bindings` from the wheel of that name alone; the
last needs libraries of the names that it was linked with, but calls nothing in them, so empty
functions do. What is recorded of other versions stays.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

FILE = Path(__file__).with_name("tensorrt_bindings.json")
CLASSES = (
    "Builder",
    "BuilderFlag",
    "ComputeCapability",
    "CudaGraphStrategy",
    "DynamicShapesKernelSpecializationStrategy",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IRuntimeCache",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
)
"""The classes that synfer-rt uses."""


def recorded(module: str) -> dict[str, dict[str, str]]:
    """The public names of each class, by library with its version."""
    library = importlib.import_module(module)
    name = "tensorrt-rtx" if module == "tensorrt_rtx" else "tensorrt"
    found = {
        each: " ".join(n for n in sorted(dir(getattr(library, each))) if not n.startswith("_"))
        for each in CLASSES
        if hasattr(library, each)
    }
    return {f"{name} {library.__version__}": found}


if __name__ == "__main__":
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for given in sys.argv[1:]:
        known |= recorded(given)
    FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
