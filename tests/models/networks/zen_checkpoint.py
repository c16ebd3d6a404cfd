"""A ZEN checkpoint in small, with random weights, as its authors publish theirs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH, HEADS, INNER, LAYERS, NGRAM_LAYERS, POSITIONS = 12, 3, 20, 4, 2, 40
PIECES = [
    "[PAD]",
    "A",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"桥南京市长江大的",
    "##市",
    "长江",
    "b",
]
# With a number, a single character and a phrase too long, which are not looked up.
NGRAMS = ["南京", "2008年", "市长", "的", "大桥", "长江大桥", "南京", "的的的的的的的的", "京市"]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * 0.5


def published(
    prefix: str = "bert.", weight: str = "weight", bias: str = "bias"
) -> dict[str, torch.Tensor]:
    """Weights in the names of the authors' release."""
    torch.manual_seed(0)
    norm = {f".LayerNorm.{weight}": (WIDTH,), f".LayerNorm.{bias}": (WIDTH,)}
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(PIECES), WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "word_embeddings.word_embeddings.weight": (len(NGRAMS) + 1, WIDTH),
        "word_embeddings.token_type_embeddings.weight": (2, WIDTH),
        "pooler.dense.weight": (WIDTH, WIDTH),
        "pooler.dense.bias": (WIDTH,),
    }
    for block in ("embeddings", "word_embeddings"):
        shapes |= {block + part: shape for part, shape in norm.items()}
    for stack, layers in (("layer", LAYERS), ("word_layers", NGRAM_LAYERS)):
        for i in range(layers):
            layer = f"encoder.{stack}.{i}."
            for name, ins, outs in (
                ("attention.self.query", WIDTH, WIDTH),
                ("attention.self.key", WIDTH, WIDTH),
                ("attention.self.value", WIDTH, WIDTH),
                ("attention.output.dense", WIDTH, WIDTH),
                ("intermediate.dense", WIDTH, INNER),
                ("output.dense", INNER, WIDTH),
            ):
                shapes[f"{layer}{name}.weight"] = (outs, ins)
                shapes[f"{layer}{name}.bias"] = (outs,)
            for part, shape in norm.items():
                shapes[f"{layer}attention.output{part}"] = shape
                shapes[f"{layer}output{part}"] = shape
    weights = {prefix + name: random(*shape) for name, shape in shapes.items()}
    weights["cls.predictions.bias"] = random(len(PIECES))
    return weights


def write(folder: Path, weights: dict[str, torch.Tensor] | None) -> str:
    """Write a checkpoint, without weights for None. Returns the folder."""
    folder.mkdir(exist_ok=True)
    config = {
        "attention_probs_dropout_prob": 0.1, "directionality": "bidi", "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": WIDTH, "initializer_range": 0.02,
        "intermediate_size": INNER, "max_position_embeddings": POSITIONS,
        "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "type_vocab_size": 2,
        "vocab_size": len(PIECES), "num_hidden_word_layers": NGRAM_LAYERS,
        "word_size": len(NGRAMS) + 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in PIECES), encoding="utf-8")
    lines = "".join(f"{n},{10 * i}\n" for i, n in enumerate(NGRAMS, 1))
    (folder / "ngram.txt").write_text(lines, encoding="utf-8")
    if weights is not None:
        save_file(weights, folder / "model.safetensors")
    return str(folder)
