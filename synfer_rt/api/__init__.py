"""synfer-rt from Python: a model, and what it does.

    import synfer_rt

    model = synfer_rt.load()
    samples = model.sample(labels=["happy"], aus={"AU12": 0.8}, count=8)
    model.write("out", count=1000, format="webdataset")
    labels = model.label("photos")
    model.augment("data", "balanced")

The commands of `synfer-rt` call these functions, whose arguments have the names of the options.
Bad input raises `synfer_rt.UserError`, which says what is wrong and what to do. Warnings
and remarks go to the logger `synfer_rt.jobs`.
"""

from __future__ import annotations

from synfer_rt.api.checks import doctor as doctor
from synfer_rt.api.checks import verify_engines as verify_engines
from synfer_rt.api.coresets import distill as distill
from synfer_rt.api.evaluation import Evaluation as Evaluation
from synfer_rt.api.evaluation import evaluate as evaluate
from synfer_rt.api.model import Model as Model
from synfer_rt.api.model import load as load
from synfer_rt.api.outputs import Verification as Verification
from synfer_rt.api.outputs import finish as finish
from synfer_rt.api.outputs import status as status
from synfer_rt.api.outputs import verify as verify
from synfer_rt.report.writing import write_report as write_report
