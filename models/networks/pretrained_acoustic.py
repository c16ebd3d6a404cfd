"""A pretrained acoustic encoder: Whisper's (Radford et al. 2022), wav2vec 2.0's or HuBERT's.

In place of the encoder of section 4.3, for models that need not stream: these see the whole
utterance. Their frames, 20 ms each, are taken in pairs and brought to the model's width, so that
all that comes after (CTC, alignment, fusion, server) finds the 40 ms frames it knows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cnerta.models.config import AcousticConfig
from cnerta.models.errors import ConfigError
from cnerta.models.networks.filterbank import windows
from cnerta.models.networks.pretrained_text import architecture_config, attention_mask, transformers
from cnerta.models.runtime.geometry import (
    HOP_SAMPLES,
    SAMPLE_RATE,
    SHIFT_SAMPLES,
    WINDOW_SAMPLES,
    FrameGeometry,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

__all__ = [
    "PretrainedAcousticEncoder",
    "acoustic_architecture",
    "load_acoustic",
    "pretrained_weights",
]

_WHISPER = "whisper"
_WAVEFORM = ("wav2vec2", "hubert")
_WHISPER_FLOOR = 1e-10
_WHISPER_RANGE = 8.0  # decades of power below the loudest that are told apart
_FRAMES_A_HOP = 2
_VARIANCE_FLOOR = 1e-7


class PretrainedAcousticEncoder(nn.Module):
    """From samples to frames, 25 a second, with a checkpoint's encoder.

    It is used like :class:`cnerta.models.networks.acoustic_encoder.AcousticEncoder` with full
    context.
    """

    def __init__(self, config: AcousticConfig, architecture: str) -> None:
        """Build with random weights.

        Args:
            config: Settings; only ``width`` and ``dropout`` count.
            architecture: The checkpoint's own configuration, see :func:`acoustic_architecture`.

        Raises:
            ConfigError: ``architecture`` is of no encoder this module supports, or the model is to
                stream.
        """
        super().__init__()
        if config.streaming:
            raise ConfigError(
                "expected model.acoustic.streaming = false with a pretrained acoustic encoder, "
                "which sees the whole utterance, got true"
            )
        self.config = config
        self.encoder = _from_architecture(architecture)
        self.projection = nn.Linear(_FRAMES_A_HOP * self.encoder.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)

    @property
    def spectral(self) -> bool:
        """Whether features are energies over time and frequency, which SpecAugment masks."""
        return self.encoder.spectral

    @property
    def geometry(self) -> FrameGeometry:
        """Sizes a caller needs."""
        return FrameGeometry(
            layers=0,
            heads=1,
            width=self.config.width,
            left_frames=0,
            chunk_frames=self.config.chunk_frames,
            carry_samples=self.encoder.carry_samples,
            streaming=False,
        )

    def features(self, samples: Tensor) -> Tensor:
        """What the encoder starts from.

        Args:
            samples: 16 kHz, -1 to 1. shape: (batch, samples); filled up with zeros to whole frames.

        Returns:
            Log mel energies, shape (batch, 4 * frames, mel_bins), or the samples themselves, shape
            (batch, samples), as the checkpoint was trained.
        """
        missing = -samples.shape[1] % HOP_SAMPLES
        return self.encoder.features(nn.functional.pad(samples, (0, missing)))

    def encode(self, features: Tensor, counts: Tensor, chunk: int | None) -> Tensor:
        """Encode the features of whole utterances.

        Args:
            features: As :meth:`features` gives them.
            counts: Valid frames of each utterance. shape: (batch,)
            chunk: None: there are no chunks.

        Returns:
            shape: (batch, frames, width)
        """
        assert chunk is None, "a pretrained acoustic encoder has full context"
        # An utterance without frames sees its padding: seeing nothing at all is NaN.
        heard = self.encoder(features, _FRAMES_A_HOP * counts.clamp(min=1))
        pairs = heard.unflatten(1, (-1, _FRAMES_A_HOP)).flatten(2)
        encoded: Tensor = self.norm(self.dropout(self.projection(pairs)))
        return encoded

    def forward(
        self, samples: Tensor, sample_counts: Tensor, chunk: int | None
    ) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        See :meth:`cnerta.models.networks.acoustic_encoder.AcousticEncoder.forward`.
        """
        counts = (sample_counts + HOP_SAMPLES - 1) // HOP_SAMPLES
        return self.encode(self.features(samples), counts, chunk), counts


class _Whisper(nn.Module):
    """Whisper's encoder, on utterances of any length.

    Its positions end at 30 s; what is longer is heard in pieces of 30 s that do not see each other.
    """

    waves: Tensor
    mel: Tensor
    spectral = True
    # Windows are centred on their samples 0, 160, 320 and 480 of a frame: 240 on the mean, 320
    # would be the middle of the frame's 640.
    carry_samples = SHIFT_SAMPLES

    def __init__(self, encoder: WhisperEncoder) -> None:
        from transformers.audio_utils import mel_filter_bank

        super().__init__()
        self.layers = encoder.layers
        self.conv1, self.conv2 = encoder.conv1, encoder.conv2
        self.embed_positions = encoder.embed_positions
        self.layer_norm = encoder.layer_norm
        self.width: int = encoder.config.d_model
        # Constants: rebuilt, not stored in checkpoints.
        bins = WINDOW_SAMPLES // 2 + 1
        angles = torch.outer(torch.arange(WINDOW_SAMPLES).double(), torch.arange(bins).double())
        angles *= 2 * torch.pi / WINDOW_SAMPLES
        hann = torch.hann_window(WINDOW_SAMPLES, dtype=torch.float64)[:, None]
        waves = torch.cat([hann * torch.cos(angles), hann * torch.sin(angles)], dim=1)
        mel = mel_filter_bank(
            bins, encoder.config.num_mel_bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney"
        )
        self.register_buffer("waves", waves.float(), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel).float(), persistent=False)

    def features(self, samples: Tensor) -> Tensor:
        """Log mel energies as Whisper's feature extractor computes them.

        Args:
            samples: Whole frames. shape: (batch, samples)

        Returns:
            shape: (batch, samples / 160, mel_bins)
        """
        half = WINDOW_SAMPLES // 2
        # The last window is one more than there are shifts; Whisper drops it too.
        padded = nn.functional.pad(samples[:, None], (half, half), mode="reflect")[:, 0]
        spectrum = windows(padded)[:, :-1] @ self.waves
        real, imaginary = spectrum.chunk(2, dim=2)
        energies = ((real * real + imaginary * imaginary) @ self.mel).clamp(min=_WHISPER_FLOOR)
        energies = energies.log10()
        loudest = energies.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(energies, loudest - _WHISPER_RANGE) + 4.0) / 4.0

    def forward(self, features: Tensor, counts: Tensor) -> Tensor:
        """Encode. shape: (batch, 2 * frames, mel_bins), (batch,) -> (batch, frames, width)."""
        x = nn.functional.gelu(self.conv1(features.transpose(1, 2)))
        x = nn.functional.gelu(self.conv2(x)).transpose(1, 2)
        index = torch.arange(x.shape[1], device=x.device)
        piece, place = index // self._positions, index % self._positions
        x = x + nn.functional.embedding(place, self.embed_positions.weight)
        seen = (index < counts[:, None])[:, None, None, :]
        # A piece of nothing but padding sees itself, or it is NaN.
        seen = (seen & (piece[:, None] == piece)) | (index[:, None] == index)
        mask = attention_mask(seen, x.dtype)
        for layer in self.layers:
            x = _first(layer(x, mask))
        encoded: Tensor = self.layer_norm(x)
        return encoded

    @property
    def _positions(self) -> int:
        return int(self.embed_positions.weight.shape[0])


class _Waveform(nn.Module):
    """The encoder of wav2vec 2.0 or HuBERT, which begin with the samples."""

    spectral = False
    carry_samples = 0  # frames are centred on the middle of their samples

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.feature_extractor = model.feature_extractor
        self.feature_projection = model.feature_projection
        self.encoder = model.encoder
        self.width: int = model.config.hidden_size
        self._norm_last: bool = model.config.do_stable_layer_norm
        hop, seen = _reach(model.config)
        if hop * _FRAMES_A_HOP != HOP_SAMPLES:
            raise ConfigError(
                "expected a pretrained acoustic encoder with frames of 20 ms, got "
                f"{1000 * hop / SAMPLE_RATE:g} ms"
            )
        # So many zeros around that n hops of samples give n frames.
        before = (seen - hop) // 2
        self._around = (before, seen - hop - before)

    def features(self, samples: Tensor) -> Tensor:
        """The samples."""
        return samples

    def forward(self, features: Tensor, counts: Tensor) -> Tensor:
        """Encode. shape: (batch, samples), (batch,) -> (batch, frames, width)."""
        hop = HOP_SAMPLES // _FRAMES_A_HOP
        samples = _normalised(features, counts * hop)
        x = self.feature_extractor(nn.functional.pad(samples, self._around)).transpose(1, 2)
        x = _first(self.feature_projection(x))
        seen = torch.arange(x.shape[1], device=x.device) < counts[:, None]
        x = x * seen[:, :, None]
        x = x + self.encoder.pos_conv_embed(x)
        if not self._norm_last:
            x = self.encoder.layer_norm(x)
        x = self.encoder.dropout(x)
        mask = attention_mask(seen[:, None, None, :], x.dtype)
        for layer in self.encoder.layers:
            x = _first(layer(x, attention_mask=mask))
        encoded: Tensor = self.encoder.layer_norm(x) if self._norm_last else x
        return encoded


def acoustic_architecture(checkpoint: str) -> str:
    """The configuration of a checkpoint as JSON; with it a model can be rebuilt without the rest.

    Args:
        checkpoint: A folder or a name on the Hugging Face hub.

    Raises:
        ConfigError: There is no such checkpoint, or it is of no encoder this module supports.
    """
    try:
        config: PreTrainedConfig = transformers().AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise ConfigError(_missing(checkpoint, error)) from error
    _check_kind(config.model_type)
    return json.dumps(config.to_diff_dict(), sort_keys=True, default=str)


def load_acoustic(encoder: PretrainedAcousticEncoder, checkpoint: str) -> None:
    """Give an encoder the weights of a checkpoint; what brings them to our width stays random.

    Raises:
        ConfigError: There is no such checkpoint, or it is of another architecture.
    """
    inner = _pretrained_encoder(checkpoint)
    try:
        encoder.encoder.load_state_dict(_wrapped(inner).state_dict())
    except RuntimeError as error:
        raise ConfigError(f"expected the weights of {checkpoint} to fit, got: {error}") from error


def pretrained_weights(checkpoint: str) -> dict[str, Tensor]:
    """The weights of a checkpoint's encoder under the library's names, as 32-bit floats.

    Raises:
        ConfigError: There is no such checkpoint.
    """
    return dict(_pretrained_encoder(checkpoint).state_dict())


def _pretrained_encoder(checkpoint: str) -> PreTrainedModel:
    try:
        source: PreTrainedModel = transformers().AutoModel.from_pretrained(
            checkpoint, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise ConfigError(_missing(checkpoint, error)) from error
    return source.encoder if source.config.model_type == _WHISPER else source


def _from_architecture(architecture: str) -> _Whisper | _Waveform:
    config = architecture_config(architecture)
    _check_kind(config.model_type)
    # Not the whole Whisper: its decoder has as many weights again.
    if config.model_type == _WHISPER:
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return _wrapped(WhisperEncoder(config))
    return _wrapped(transformers().AutoModel.from_config(config))


def _wrapped(model: PreTrainedModel) -> _Whisper | _Waveform:
    return _Whisper(model) if model.config.model_type == _WHISPER else _Waveform(model)


def _check_kind(kind: str) -> None:
    known = (_WHISPER, *_WAVEFORM)
    if kind not in known:
        raise ConfigError(f"expected a pretrained acoustic encoder of {known}, got {kind!r}")


def _reach(config: PreTrainedConfig) -> tuple[int, int]:
    """Samples that a frame moves by and that it sees."""
    hop, seen = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        seen += (kernel - 1) * hop
        hop *= stride
    return hop, seen


def _normalised(samples: Tensor, counts: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the valid samples, as these encoders were trained."""
    valid = torch.arange(samples.shape[1], device=samples.device) < counts[:, None]
    mean = (samples * valid).sum(dim=1, keepdim=True) / counts[:, None]
    centred = (samples - mean) * valid
    variance = centred.square().sum(dim=1, keepdim=True) / counts[:, None]
    return centred / (variance + _VARIANCE_FLOOR).sqrt()


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a layer computes; some add more."""
    return output if isinstance(output, Tensor) else output[0]


def _missing(checkpoint: str, error: Exception) -> str:
    return (
        "expected model.acoustic.checkpoint, a folder or hub name of a pretrained acoustic "
        f"encoder, got {checkpoint!r}: {error}"
    )
