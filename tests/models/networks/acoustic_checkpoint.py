"""Pretrained acoustic encoders as the hub has them, in small."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers


def write(folder: Path, kind: str) -> str:
    """An encoder with random weights.

    Args:
        folder: Where to.
        kind: ``whisper``, ``wav2vec2``, ``wav2vec2-stable`` or ``hubert``.

    Returns:
        The folder.
    """
    torch.manual_seed(0)
    waveform = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2, "initializer_range": 0.5,
    }  # fmt: skip
    stable = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
    built = {
        "whisper": lambda: transformers.WhisperModel(
            transformers.WhisperConfig(
                vocab_size=20, d_model=16, encoder_layers=2, encoder_attention_heads=2,
                encoder_ffn_dim=24, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8,
                pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
                init_std=0.5,
            )
        ),
        "wav2vec2": lambda: transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**waveform)),
        "wav2vec2-stable": lambda: transformers.Wav2Vec2Model(
            transformers.Wav2Vec2Config(**waveform, **stable)
        ),
        "hubert": lambda: transformers.HubertModel(transformers.HubertConfig(**waveform)),
    }  # fmt: skip
    built[kind]().half().save_pretrained(folder)
    return str(folder)
