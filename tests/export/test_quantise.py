from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from cnerta.export.quantise import quantise_graph  # noqa: E402

Floats = npt.NDArray[np.float32]
_DYNAMIC = {"DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul"}
WIDE, NARROW = 1536, 24  # twelve blocks


def write(path: Path, scope: str, weights: list[Floats]) -> None:
    """Products one after the other, all from one place of a model."""
    nodes = []
    for i in range(len(weights)):
        node = onnx.helper.make_node(
            "MatMul", ["x" if i == 0 else f"y{i - 1}", f"w{i}"], [f"y{i}"], name=f"product{i}"
        )
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{scope}']")
        nodes.append(node)
    last = weights[-1].shape[1]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", len(weights[0])])],
        [onnx.helper.make_tensor_value_info(f"y{len(weights) - 1}", 1, ["n", last])],
        [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def run(path: Path, x: Floats) -> Floats:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def weight(rows: int, columns: int) -> Floats:
    return np.random.default_rng(rows).normal(size=(rows, columns)).astype(np.float32)


@pytest.fixture
def outliers() -> Floats:
    """Inputs of which one is a thousand times the others, as inside a pretrained encoder."""
    x = np.random.default_rng(1).normal(size=(5, WIDE)).astype(np.float32)
    x[:, 7] *= 1000
    return x


def error(found: Floats, expected: Floats, x: Floats, w: Floats) -> float:
    """Largest error beside what the ordinary inputs contribute."""
    ordinary = x.copy()
    ordinary[:, 7] = 0
    return float(np.abs(found - expected).max() / np.abs(ordinary @ w).max())


def test_large_inputs_do_not_drown_the_others(tmp_path: Path, outliers: Floats) -> None:
    narrowing = weight(WIDE, NARROW)
    narrowing[7] = 0  # the large input itself tells nothing
    errors = {}
    for scope in ("model.text.encoder.layer.0.output", "model.fusion"):
        path = tmp_path / "graph.onnx"
        write(path, scope, [narrowing])
        expected = run(path, outliers)
        quantise_graph(path)
        operators = {node.op_type for node in onnx.load(path).graph.node}
        assert operators == ({"MatMulNBits"} if "text" in scope else _DYNAMIC)
        errors[scope] = error(run(path, outliers), expected, outliers, narrowing)
    in_blocks, at_once = errors.values()
    assert in_blocks < 0.4 * at_once, "only what shares the block is lost"
    assert at_once > 0.5, "what this is for"


def test_a_graph_is_smaller_and_says_nearly_the_same(tmp_path: Path) -> None:
    for scope in ("model.text.encoder", "model.layers"):
        path = tmp_path / "graph.onnx"
        write(path, scope, [weight(WIDE, WIDE), weight(WIDE, NARROW)])
        x = weight(4, WIDE)
        expected, size = run(path, x), path.stat().st_size
        quantise_graph(path)
        np.testing.assert_allclose(run(path, x), expected, atol=0.03 * np.abs(expected).max())
        assert path.stat().st_size < 0.3 * size


def test_the_filter_bank_stays_as_it_is(tmp_path: Path) -> None:
    for scope in ("encoder.filter_bank", "model.text.encoder.filter_bank"):
        path = tmp_path / "graph.onnx"
        write(path, scope, [weight(WIDE, NARROW)])
        quantise_graph(path)
        assert [node.op_type for node in onnx.load(path).graph.node] == ["MatMul"]
