"""How a run's computation is compared with that of its beginning."""

from __future__ import annotations

from synfer_rt.backends.computation import Computation


def test_engines_elsewhere_are_the_same_by_their_former_names():
    here = Computation("openvino-cpu", "bf16", "openvino 2026.4.1", "cpu", ("feranno",))
    assert here.differs({**here.settings(), "elsewhere": ["annotator"]}) == []
    assert here.differs({**here.settings(), "elsewhere": ["decoder"]}) == ["elsewhere"]
    assert here.differs({**here.settings(), "elsewhere": 3}) == ["elsewhere"]
