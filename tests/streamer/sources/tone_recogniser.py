"""A streaming recogniser of two "characters", a low and a high tone, for sherpa-onnx's real engine.

The graph has the inputs, outputs and metadata of a streaming NeMo CTC model, which is the plainest
of those that sherpa-onnx loads. One convolution with weights that are written down here says 一
where the low bands of the filter bank are loud, 二 where the high ones are, and blank elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLE_RATE = 16_000
LOW_HZ, HIGH_HZ = 300, 3_000
WINDOW_FRAMES, SHIFT_FRAMES = 32, 32
BANDS = 80
BLANK_LEVEL = -14.5
"""Of the mean log energy of eight bands: silence is just below, a tone in them far above."""


def write_tone_model(folder: Path) -> Path:
    """Write ``model.onnx`` and ``tokens.txt`` into a folder; it needs ``kind=nemo-ctc``."""
    weights = np.zeros((3, BANDS, 4), np.float32)
    weights[0, 8:16] = 1 / 32  # around 300 Hz
    weights[1, 56:64] = 1 / 32  # around 3 kHz
    bias = np.array([0, 0, BLANK_LEVEL], np.float32)
    caches = ("cache_last_channel", "cache_last_time", "cache_last_channel_len")
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64)
    shapes = ([None, 1, 1, 1], [None, 1, 1, 1], [None])

    def states(suffix: str) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name + suffix, kind, shape)
            for name, kind, shape in zip(caches, kinds, shapes, strict=True)
        ]

    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["audio_signal", "weights", "bias"], ["scores"], strides=[4]),
            helper.make_node("Transpose", ["scores"], ["logits"], perm=[0, 2, 1]),
            helper.make_node("Identity", ["length"], ["out_length"]),
            *(helper.make_node("Identity", [name], [f"{name}_next"]) for name in caches),
        ],
        "tones",
        [
            helper.make_tensor_value_info("audio_signal", TensorProto.FLOAT, [None, BANDS, None]),
            helper.make_tensor_value_info("length", TensorProto.INT64, [None]),
            *states(""),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, None, 3]),
            helper.make_tensor_value_info("out_length", TensorProto.INT64, [None]),
            *states("_next"),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = {
        "model_type": "EncDecCTCModelBPE",
        "window_size": WINDOW_FRAMES,
        "chunk_shift": SHIFT_FRAMES,
        "subsampling_factor": 4,
        "vocab_size": 2,  # without blank
        "normalize_type": "",
        **{f"{cache}_dim{n}": 1 for cache in caches[:2] for n in (1, 2, 3)},
    }
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "tokens.txt").write_text("一 0\n二 1\n<blk> 2\n", encoding="utf-8")
    return folder


def tones(text: str, *, seconds: float = 0.25, gap: float = 0.25) -> npt.NDArray[np.float32]:
    """Say 一 and 二 in tones; a space is a second of silence. float32, (samples,)."""

    def silence(length: float) -> npt.NDArray[np.float32]:
        # Not quite nothing: a microphone never is.
        noise = np.random.default_rng(1).normal(0, 1e-5, round(SAMPLE_RATE * length))
        return noise.astype(np.float32)

    at = np.arange(round(SAMPLE_RATE * seconds)) / SAMPLE_RATE
    pieces = [silence(gap)]
    for character in text:
        if character == " ":
            pieces.append(silence(1))
            continue
        hertz = {"一": LOW_HZ, "二": HIGH_HZ}[character]
        pieces.append((0.3 * np.sin(2 * np.pi * hertz * at)).astype(np.float32))
        pieces.append(silence(gap))
    return np.concatenate(pieces)
