"""AU adapters: both file forms read, everything else refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from safetensors.torch import save_file

from synfer_rt.errors import UserError
from synfer_rt.export.adapter import read_adapter

WIDTHS = {1: 8, 3: 12}
TENSORS = {
    "image_proj.proj.weight": torch.rand(6, 5),
    "image_proj.proj.bias": torch.rand(6),
    "ip_adapter.1.to_k_ip.weight": torch.rand(8, 6),
    "ip_adapter.1.to_v_ip.weight": torch.rand(8, 6),
    "ip_adapter.3.to_k_ip.weight": torch.rand(12, 6),
    "ip_adapter.3.to_v_ip.weight": torch.rand(12, 6),
}


def grouped() -> dict[str, dict[str, torch.Tensor]]:
    groups: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in TENSORS.items():
        group, _, rest = name.partition(".")
        groups[group][rest] = tensor
    return groups


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "au_adapter.safetensors"
    save_file(TENSORS, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_adapter(path, WIDTHS, 6)
    return str(error.value)


def test_a_safetensors_adapter_is_read(file: Path) -> None:
    adapter = read_adapter(file, WIDTHS, 6)
    assert adapter.units == 5
    assert torch.equal(adapter.proj_weight, TENSORS["image_proj.proj.weight"])
    assert torch.equal(adapter.to_v[3], TENSORS["ip_adapter.3.to_v_ip.weight"])


def test_half_precision_is_widened(tmp_path: Path) -> None:
    save_file({name: t.half() for name, t in TENSORS.items()}, tmp_path / "half.safetensors")
    assert read_adapter(tmp_path / "half.safetensors", WIDTHS, 6).proj_weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["adapter.bin", "model.safetensors"])
def test_a_torch_file_is_told_by_content_whatever_its_name(tmp_path: Path, name: str) -> None:
    torch.save(grouped(), tmp_path / name)
    adapter = read_adapter(tmp_path / name, WIDTHS, 6)
    assert torch.equal(adapter.to_v[1], TENSORS["ip_adapter.1.to_v_ip.weight"])


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"image_proj": Code()}, tmp_path / "evil.bin")
    assert "cannot be read as plain tensors" in refusal(tmp_path / "evil.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [4, 200, 900])
def test_a_file_cut_short_is_refused(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    assert str(file) in refusal(file)


def test_unknown_keys_are_listed_with_the_expected_ones(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"au_encoder.weight": torch.rand(2, 2)}, path)
    message = refusal(path)
    assert "found are au_encoder.weight" in message
    assert "image_proj.proj.bias" in message and "ip_adapter.3.to_v_ip.weight" in message


def test_an_adapter_that_lacks_a_layer_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    save_file({k: v for k, v in TENSORS.items() if k != "ip_adapter.3.to_v_ip.weight"}, path)
    assert "lacks ip_adapter.3.to_v_ip.weight and has besides nothing" in refusal(path)


def test_more_than_one_token_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.safetensors"
    wide = {"image_proj.proj.weight": torch.rand(24, 5), "image_proj.proj.bias": torch.rand(24)}
    save_file(TENSORS | wide, path)
    assert "one AU token" in refusal(path)


def test_a_layer_of_another_width_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "width.safetensors"
    save_file(TENSORS | {"ip_adapter.1.to_v_ip.weight": torch.rand(9, 6)}, path)
    assert "[9, 6]; this UNet needs [8, 6]" in refusal(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "--au-adapter" in refusal(tmp_path / "none.safetensors")
