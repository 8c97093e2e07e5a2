"""How users name networks, and what these read."""

from __future__ import annotations

import onnx
import pytest

from synfer_rt import UserError
from synfer_rt.jobs.evaluation.networks import Opener, units_of
from tests.jobs.small_network import network


def test_a_value_of_the_graph_is_named_behind_the_file(tmp_path) -> None:
    file = network(tmp_path / "net.onnx", 8, 6)
    made = onnx.load(file)
    made.graph.node[0].output[0] = made.graph.node[1].input[0] = "/flatten/out:0"
    file.write_bytes(made.SerializeToString())
    opener = Opener("onnxruntime-cpu", 1)
    found = opener.described(f"{file}:/flatten/out:0", "8,rgb", "features", ("features",))
    assert found.size == 3 * 8 * 8 and found.output == "/flatten/out:0"


def test_units_are_a_vocabulary_or_a_list() -> None:
    assert len(units_of("disfa-12")) == 12
    assert units_of("AU12, -,L2") == units_of(["AU12", "-", "L2"]) == ("AU12", "-", "L2")
    with pytest.raises(UserError, match="twice"):
        units_of("AU1,AU1")
