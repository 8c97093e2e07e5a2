"""Each kind of change is what its formula says, written out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the build side needs synfer-rt[export]")
import torch

from synfer_rt.export.files.lora.low_rank import merged

LINEAR, CONVOLUTION = (6, 4), (6, 4, 3, 3)
FACTOR = 0.75


DRAW = np.random.default_rng(0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.from_numpy(DRAW.standard_normal(shape).astype("f4"))


def low_rank(shape: tuple[int, ...], rank: int = 2) -> dict[str, torch.Tensor]:
    out, into, *kernel = shape
    return {"down": drawn(rank, into, *kernel), "up": drawn(out, rank, *[1 for _ in kernel])}


def product(parts: dict[str, torch.Tensor]) -> np.ndarray:
    up, down = (parts[name].double().numpy() for name in ("up", "down"))
    return np.einsum("or,r...->o...", up.reshape(up.shape[:2]), down)


def check(weight: torch.Tensor, parts: Any, wanted: np.ndarray, scale: float = 1.0) -> None:
    found = merged(weight, parts, FACTOR, scale)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-6)
    on_meta = merged(weight.to("meta"), {n: t.to("meta") for n, t in parts.items()}, FACTOR, scale)
    assert on_meta.shape == weight.shape


@pytest.mark.parametrize("scale", [1.0, 0.4, 0.0, -1.0])
@pytest.mark.parametrize("shape", [LINEAR, CONVOLUTION])
@pytest.mark.parametrize("rank", [1, 3])
def test_lora(shape: tuple[int, ...], rank: int, scale: float) -> None:
    weight, parts = drawn(*shape), low_rank(shape, rank)
    check(weight, parts, weight.double().numpy() + scale * FACTOR * product(parts), scale)


def test_loras_middle_factor_has_the_kernel() -> None:
    weight = drawn(*CONVOLUTION)
    parts = {"down": drawn(2, 4, 1, 1), "mid": drawn(3, 2, 3, 3), "up": drawn(6, 3, 1, 1)}
    down, mid, up = (parts[name].double().numpy() for name in ("down", "mid", "up"))
    wanted = weight.double().numpy()
    for n in range(3):
        for m in range(2):
            outer = np.einsum("o,i,kl->oikl", up[:, n, 0, 0], down[m, :, 0, 0], mid[n, m])
            wanted = wanted + FACTOR * outer
    check(weight, parts, wanted)


@pytest.mark.parametrize("shape", [LINEAR, CONVOLUTION])
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_pefts_dora_norms_each_output_after_scaling(shape: tuple[int, ...], scale: float) -> None:
    weight, parts = drawn(*shape), low_rank(shape)
    magnitude = 1 + torch.rand(6)
    parts["magnitude"] = magnitude if len(shape) == 2 else magnitude[None, :, None, None]
    moved = weight.double().numpy() + scale * FACTOR * product(parts)
    norms = np.sqrt((moved.reshape(6, -1) ** 2).sum(1))
    factors = (magnitude.numpy() / norms).reshape(6, *[1] * (len(shape) - 1))
    check(weight, parts, factors * moved, scale)


@pytest.mark.parametrize("shape", [LINEAR, CONVOLUTION, (4, 4)])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 0.4, 0.0])
def test_kohyas_dora_norms_outputs_or_inputs_by_its_shape(
    shape: tuple[int, ...], axis: int, scale: float
) -> None:
    weight, parts = drawn(*shape), low_rank(shape)
    sizes = [shape[i] if i == axis else 1 for i in range(len(shape))]
    parts["dora_scale"] = 1 + torch.rand(sizes)
    before = weight.double().numpy()
    moved = before + FACTOR * product(parts)
    others = tuple(i for i in range(len(shape)) if i != axis)
    aim = parts["dora_scale"].numpy() * moved / np.sqrt((moved**2).sum(others, keepdims=True))
    check(weight, parts, before + scale * (aim - before), scale)


def test_a_row_without_direction_stays_zero() -> None:
    parts = {"down": torch.zeros(1, 4), "up": torch.zeros(6, 1), "magnitude": torch.ones(6)}
    check(torch.zeros(6, 4), parts, np.zeros((6, 4)))


def test_an_embedding_is_changed_transposed() -> None:
    weight = drawn(9, 4)
    parts = {"embedding_down": drawn(2, 9), "embedding_up": drawn(4, 2)}
    down, up = (parts[name].double().numpy() for name in ("embedding_down", "embedding_up"))
    moved = weight.double().numpy() + FACTOR * (up @ down).T
    check(weight, parts, moved)
    parts["magnitude"] = 1 + torch.rand(4)
    wanted = parts["magnitude"].numpy() * moved / np.sqrt((moved**2).sum(0))
    check(weight, parts, wanted)


@pytest.mark.parametrize("shape", [LINEAR, CONVOLUTION])
def test_loha_is_a_product_element_by_element(shape: tuple[int, ...]) -> None:
    columns = int(np.prod(shape[1:]))
    weight, parts = drawn(*shape), {}
    for i in "12":
        parts |= {f"hada_w{i}_a": drawn(6, 2), f"hada_w{i}_b": drawn(2, columns)}
    given = {name: tensor.double().numpy() for name, tensor in parts.items()}
    first = given["hada_w1_a"] @ given["hada_w1_b"]
    change = (first * (given["hada_w2_a"] @ given["hada_w2_b"])).reshape(shape)
    check(weight, parts, weight.double().numpy() + FACTOR * change)


def test_lohas_cores_have_the_kernel() -> None:
    weight, parts = drawn(*CONVOLUTION), {}
    for i in "12":
        parts |= {f"hada_w{i}_a": drawn(2, 6), f"hada_w{i}_b": drawn(2, 4)}
        parts[f"hada_t{i}"] = drawn(2, 2, 3, 3)
    change = np.ones(CONVOLUTION)
    for i in "12":
        a, b, t = (parts[f"hada_{n}"].double().numpy() for n in (f"w{i}_a", f"w{i}_b", f"t{i}"))
        change = change * sum(
            np.einsum("o,i,kl->oikl", a[n], b[m], t[n, m]) for n in range(2) for m in range(2)
        )
    check(weight, parts, weight.double().numpy() + FACTOR * change)


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("form", ["whole", "product", "core"])
def test_lokr_is_kroneckers_product(kernel: tuple[int, ...], form: str) -> None:
    """ΔW[a·B + b, c·D + d, ...] = w1[a, c] · w2[b, d, ...], with B and D the sizes of w2."""
    if form == "core" and not kernel:
        return
    weight, parts = drawn(6, 4, *kernel), {"lokr_w1": drawn(2, 2)}
    if form == "whole":
        parts["lokr_w2"] = drawn(3, 2, *kernel)
        second = parts["lokr_w2"].double().numpy()
    elif form == "product":
        parts |= {"lokr_w2_a": drawn(3, 1), "lokr_w2_b": drawn(1, 2 * int(np.prod(kernel)))}
        a, b = (parts[name].double().numpy() for name in ("lokr_w2_a", "lokr_w2_b"))
        second = (a @ b).reshape(3, 2, *kernel)
    else:
        parts |= {"lokr_w2_a": drawn(2, 3), "lokr_w2_b": drawn(2, 2), "lokr_t2": drawn(2, 2, 3, 3)}
        a, b, t = (parts[n].double().numpy() for n in ("lokr_w2_a", "lokr_w2_b", "lokr_t2"))
        second = sum(
            np.multiply.outer(np.outer(a[n], b[m]), t[n, m]) for n in range(2) for m in range(2)
        )
    change, first = np.zeros((6, 4, *kernel)), parts["lokr_w1"].double().numpy()
    for a in range(2):
        for c in range(2):
            change[3 * a : 3 * a + 3, 2 * c : 2 * c + 2] = first[a, c] * second
    check(weight, parts, weight.double().numpy() + FACTOR * change)


@pytest.mark.parametrize(
    "parts",
    [
        {"down": torch.rand(2, 5), "up": torch.rand(6, 2)},
        {"down": torch.rand(2, 4), "up": torch.rand(5, 2)},
        {"down": torch.rand(2, 4, 3, 3), "up": torch.rand(6, 2, 1, 1)},
        {"down": torch.rand(2, 4), "up": torch.rand(6, 2, 2, 1)},
        {"down": torch.rand(2, 6), "up": torch.rand(4, 2)},
        {**low_rank(LINEAR), "magnitude": torch.rand(4)},
        {**low_rank(LINEAR), "dora_scale": torch.rand(1, 6)},
        {"diff": torch.rand(4, 6)},
    ],
)
def test_other_sizes_are_refused_before_anything_is_computed(parts: Any) -> None:
    for device in ("cpu", "meta"):
        given = {name: tensor.to(device) for name, tensor in parts.items()}
        with pytest.raises((ValueError, RuntimeError)):
            merged(torch.rand(6, 4, device=device), given, 1.0, 1.0)
