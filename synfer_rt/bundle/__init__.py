"""The bundle: a directory of engines and what is needed to run them, described by bundle.json.

`manifest.py` knows the schema of bundle.json; docs/architecture.md lists its fields. A bundle is
checked completely before anything of it is loaded.
"""

from synfer_rt.bundle.bundle import Bundle, Defaults, Latent
from synfer_rt.bundle.cuda import CudaSpec
from synfer_rt.bundle.engine_specs import FERANNO, EngineSpec, Head
from synfer_rt.bundle.files import MANIFEST
from synfer_rt.bundle.layouts import Layouts
from synfer_rt.bundle.opening import open_bundle
from synfer_rt.bundle.plans import PlanSpec
from synfer_rt.bundle.writing import write_manifest

__all__ = [
    "FERANNO",
    "MANIFEST",
    "Bundle",
    "CudaSpec",
    "Defaults",
    "EngineSpec",
    "Head",
    "Latent",
    "Layouts",
    "PlanSpec",
    "open_bundle",
    "write_manifest",
]
