from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from cnerta.models.networks.rounded_weights import BLOCK, restored, rounded  # noqa: E402


@pytest.mark.parametrize("columns", [BLOCK, 3 * BLOCK, 3 * BLOCK + 7, 100])
def test_a_matrix_comes_back_to_half_a_step(columns: int) -> None:
    matrix = torch.randn(60, columns, generator=torch.Generator().manual_seed(0))
    matrix[3, 5] = 1000.0  # rounds its own block only
    matrix[7] = 0.0
    stored = rounded({"m": matrix})
    assert stored["m"].dtype == torch.int8
    found = restored(stored)["m"]
    assert found.shape == matrix.shape
    for first in range(0, columns, BLOCK):
        own, back = matrix[:, first : first + BLOCK], found[:, first : first + BLOCK]
        step = own.abs().amax(dim=1, keepdim=True) / 127
        assert ((own - back).abs() <= 0.51 * step + 1e-6).all()


def test_what_is_small_or_whole_is_not_rounded_to_8_bits() -> None:
    weights = {
        "bias": torch.linspace(0, 1, 5000),
        "small": torch.rand(10, 10),
        "ids": torch.arange(10_000).reshape(100, 100),
    }
    stored = rounded(weights)
    assert [w.dtype for w in stored.values()] == [torch.float16, torch.float16, torch.int64]
    found = restored(stored)
    assert torch.equal(found["ids"], weights["ids"])
    torch.testing.assert_close(found["bias"].float(), weights["bias"], atol=1e-6, rtol=1e-3)
    assert restored(weights) == weights, "plain weights are as they are"


def test_a_checkpoint_is_stored_in_a_quarter(tiny_model: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(tiny_model)
    # As large as matrices have to be for it.
    rows = torch.nn.Embedding(700, model.emissions.in_features)
    model.emissions.weight = torch.nn.Parameter(rows.weight[: len(model.scheme)].detach())
    for name, options in (("whole", {}), ("int8", {"int8": True})):
        save_checkpoint(tmp_path / name, Checkpoint("tiny", model, {}, {}), **options)
    whole, small = (load_checkpoint(tmp_path / n).model.state_dict() for n in ("whole", "int8"))
    for name, weight in whole.items():
        assert small[name].dtype == weight.dtype
        step = float(weight.abs().max()) / 127 if weight.is_floating_point() else 0.0
        torch.testing.assert_close(small[name], weight, atol=0.51 * step + 1e-6, rtol=1e-3)
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("int8", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
