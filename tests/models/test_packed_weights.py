from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from cnerta.models.packed_weights import pack, unpack  # noqa: E402


def test_matrices_come_back_within_half_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(70, 100, generator=generator)
    matrix[3, 5] = 50.0  # its block is coarse, the others are not
    matrix[4] = 0.0
    packed = pack({"a.weight": matrix})
    assert packed["a.weight.int8"].dtype == torch.int8
    (back,) = unpack(packed).values()
    assert back.shape == matrix.shape
    step = matrix.abs().max() / 127
    assert (back - matrix).abs().max() <= 0.51 * step
    others = torch.ones(70, dtype=torch.bool)
    others[3] = False
    assert (back - matrix)[others].abs().max() < 0.51 * matrix[others].abs().max() / 127
    assert not back[4].any()


def test_what_is_small_or_no_matrix_stays_a_float() -> None:
    weights = {
        "small": torch.randn(3, 5),
        "vector": torch.randn(9000),
        "count": torch.tensor([7]),
        "cube": torch.randn(20, 20, 20),
    }
    back = unpack(pack(weights))
    assert set(back) == set(weights)
    for name, weight in weights.items():
        expected = weight.half() if weight.is_floating_point() else weight
        assert torch.equal(back[name], expected)


def test_plain_weights_are_left_alone() -> None:
    weights = {"a": torch.randn(80, 80)}
    assert torch.equal(unpack(weights)["a"], weights["a"])
