"""Whisper's encoder (Radford et al. 2022), hearing speech as it comes in.

The published encoder hears 30 s at once. Four things keep it from streaming, and are changed here:

* its convolutions see half a frame ahead: here a frame is made of the samples that end with it, 45
  ms before it included, the same as in :mod:`cnerta.models.networks.acoustic_encoder`, so that the
  two encoders have one clock;
* the floor of its energies lies eight decades below the loudest of the whole recording: here it is
  fixed, where recordings of usual loudness have it;
* every frame attends to all others: here to those of its chunk and to some before it, as in U2
  (Zhang et al. 2020), with the keys and values of those before it as the stream's state;
* its positions end after 30 s: here they begin anew every 28 s, and what was heard before that is
  forgotten, as at the start of a stream. (Tried: sinusoids whose frequencies are rounded so that
  they repeat by themselves. Whisper's layers need them as they are: of frames that a probe of them
  told right, 61 % at the start of the period, 11 % were left after 18 s of it.)

The weights of a checkpoint start it, and training makes up for the rest. Its 20 ms frames are taken
in pairs and brought to the model's width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cnerta.models.config import AcousticConfig
from cnerta.models.errors import ConfigError
from cnerta.models.networks.acoustic_encoder import chunk_mask
from cnerta.models.networks.filterbank import windows
from cnerta.models.runtime.geometry import (
    CARRY_SAMPLES,
    HOP_SAMPLES,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    FrameGeometry,
)

__all__ = [
    "SinusoidalPositions",
    "StreamingWhisperEncoder",
    "WhisperFilterBank",
    "load_streaming_whisper",
]

_STEPS = 2  # of the encoder, 20 ms, a frame
_TAPS = 3  # of both convolutions
_PERIOD = 700  # frames until positions begin anew, 28 s: the last chunk may reach beyond
_TIMESCALES = 10_000.0
_LEAST_ENERGY = 1e-10
# In decades. Whisper's own is 8 below the loudest: in the median of 100 recordings each -8.4
# (AISHELL-1's S0150), -7.9 (ten others of AISHELL-1), -7.2 (MagicHub), -6.5 (a synthetic voice).
_FLOOR = -8.0
_DECADE = math.log(10.0)
_LEAST_VARIANCE = 1e-6
_NOTHING = -1e9


class SinusoidalPositions(nn.Module):
    """Whisper's positions, whatever the number of the step."""

    speeds: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        place = torch.arange(half, dtype=torch.float64) / (half - 1)
        self.register_buffer("speeds", (_TIMESCALES**-place).float(), persistent=False)

    def forward(self, steps: Tensor) -> Tensor:
        """Embed.

        Args:
            steps: Numbers of 20 ms steps. shape: (batch, time)

        Returns:
            shape: (batch, time, width)
        """
        angles = steps[:, :, None] * self.speeds  # radians
        return torch.cat([angles.sin(), angles.cos()], dim=2)


class WhisperFilterBank(nn.Module):
    """Whisper's log mel energies, with a floor that does not depend on what is still to come.

    Attributes:
        mean: The logarithm of the energy that becomes 0. shape: (1,)
        deviation: That of the factor that a step of 1 stands for. shape: (1,)
    """

    waves: Tensor
    mel: Tensor
    mean: Tensor
    deviation: Tensor
    centres_hz: Tensor

    def __init__(self, mel_bins: int) -> None:
        # The library takes seconds to import, and only these models need it.
        from transformers.audio_utils import mel_filter_bank

        super().__init__()
        # Constants: rebuilt, not stored in checkpoints.
        bins = WINDOW_SAMPLES // 2 + 1
        angles = torch.outer(torch.arange(WINDOW_SAMPLES).double(), torch.arange(bins).double())
        angles *= 2 * torch.pi / WINDOW_SAMPLES
        hann = torch.hann_window(WINDOW_SAMPLES, dtype=torch.float64)[:, None]
        waves = torch.cat([hann * torch.cos(angles), hann * torch.sin(angles)], dim=1)
        mel = mel_filter_bank(bins, mel_bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney")
        filters = torch.from_numpy(mel)
        hertz = torch.arange(bins, dtype=torch.float64) * SAMPLE_RATE / WINDOW_SAMPLES
        self.register_buffer("waves", waves.float(), persistent=False)
        self.register_buffer("mel", filters.float(), persistent=False)
        centres = (hertz[:, None] * filters).sum(dim=0) / filters.sum(dim=0)
        self.register_buffer("centres_hz", centres, persistent=False)
        self.register_buffer("mean", torch.tensor([-4.0 * _DECADE]), persistent=False)
        self.register_buffer("deviation", torch.tensor([4.0 * _DECADE]), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Energies as Whisper scales them.

        Args:
            samples: 16 kHz, -1 to 1. shape: (batch, samples)

        Returns:
            shape: (batch, windows, mel_bins), windows = (samples - 400) // 160 + 1
        """
        real, imaginary = (windows(samples) @ self.waves).chunk(2, dim=2)
        energies = (real * real + imaginary * imaginary) @ self.mel
        decades = energies.clamp(min=_LEAST_ENERGY).log() / _DECADE
        return (decades.clamp(min=_FLOOR) + 4.0) / 4.0

    def place(self, hertz: Tensor) -> Tensor:
        """Which filter, with fractions, peaks at each frequency. shape: (n,) -> (n,)."""
        centres = self.centres_hz
        low = (torch.searchsorted(centres, hertz) - 1).clamp(0, len(centres) - 2)
        return low + (hertz - centres[low]) / (centres[low + 1] - centres[low])


class _Attention(nn.Module):
    """Self-attention over earlier and new steps."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from the new steps to the past and new ones.

        Args:
            x: New steps. shape: (batch, time, width)
            past: Keys and values of earlier steps, in any order.
                shape of each: (batch, heads, past, size)
            mask: True, or 0 if it is to be added, where attention is allowed.
                shape: (batch, 1, 1 or time, past + time)

        Returns:
            The attended steps, shape (batch, time, width), and the keys and values of the new ones,
            shape (batch, heads, time, size).
        """
        split = self.projection(x).unflatten(2, (3, self.heads, -1))
        query, key, value = (part.transpose(1, 2) for part in split.unbind(2))
        keys, values = key, value
        if past is not None:
            keys = torch.cat([past[0], key], dim=2)
            values = torch.cat([past[1], value], dim=2)
        attended = nn.functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.output(attended.transpose(1, 2).flatten(2)), key, value


class _Layer(nn.Module):
    """One pre-norm transformer layer, as Whisper has them."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = _Attention(width, heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, feed_forward)
        self.outer = nn.Linear(feed_forward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`_Attention.forward`."""
        attended, key, value = self.attention(self.attention_norm(x), past, mask)
        x = x + self.dropout(attended)
        inner = self.dropout(nn.functional.gelu(self.inner(self.feed_forward_norm(x))))
        return x + self.dropout(self.outer(inner)), key, value


class StreamingWhisperEncoder(nn.Module):
    """From samples to frames, 25 a second.

    It is used like :class:`cnerta.models.networks.acoustic_encoder.AcousticEncoder`.

    Attributes:
        spectral: Features are energies over time and frequency, which SpecAugment masks.
    """

    spectral = True

    def __init__(self, config: AcousticConfig, architecture: str) -> None:
        """Build with random weights.

        Args:
            config: Settings. ``width``, ``dropout`` and the chunks' count, and ``layers``: so many
                of the checkpoint's are used, from the first.
            architecture: The checkpoint's own configuration, see
                :func:`cnerta.models.networks.pretrained_acoustic.acoustic_architecture`.

        Raises:
            ConfigError: ``architecture`` is not of a Whisper.
        """
        from cnerta.models.networks.pretrained_text import architecture_config

        super().__init__()
        whisper = architecture_config(architecture)
        if whisper.model_type != "whisper":
            raise ConfigError(
                "expected model.acoustic.streaming = false with a pretrained acoustic encoder that "
                f"is no Whisper, got true with {whisper.model_type!r}"
            )
        self.config = config
        width: int = whisper.d_model
        self.heads: int = whisper.encoder_attention_heads
        self.size = width // self.heads
        self.filter_bank = WhisperFilterBank(whisper.num_mel_bins)
        # The convolutions, as products with what their taps see: those get 8-bit weights.
        self.first = nn.Linear(_TAPS * whisper.num_mel_bins, width)
        self.second = nn.Linear(_TAPS * width, width)
        self.positions = SinusoidalPositions(width)
        count = min(config.layers, whisper.encoder_layers)
        inner: int = whisper.encoder_ffn_dim
        self.layers = nn.ModuleList(
            _Layer(width, self.heads, inner, config.dropout) for _ in range(count)
        )
        self.layers_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(_STEPS * width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)

    @property
    def geometry(self) -> FrameGeometry:
        """Sizes a streaming caller needs: a frame's keys are those of both its steps."""
        c = self.config
        return FrameGeometry(
            len(self.layers),
            self.heads,
            c.width,
            c.left_frames,
            c.chunk_frames,
            head_size=_STEPS * self.size,
        )

    def features(self, samples: Tensor) -> Tensor:
        """Energies of whole utterances, from the zero history of a stream's start.

        Args:
            samples: shape: (batch, samples); filled up with zeros to whole frames.

        Returns:
            shape: (batch, 4 * frames + 3, mel_bins)
        """
        missing = -samples.shape[1] % HOP_SAMPLES
        padded: Tensor = self.filter_bank(nn.functional.pad(samples, (CARRY_SAMPLES, missing)))
        return padded

    def _embed(self, features: Tensor) -> Tensor:
        """Convolve. shape: (batch, 4 * frames + 3, mel_bins) -> (batch, 2 * frames, width)."""
        seen = torch.cat([features[:, :-2], features[:, 1:-1], features[:, 2:]], dim=2)
        x = nn.functional.gelu(self.first(seen))
        # Of stride 2: two taps are a pair, the third is the first of the next one.
        batch, _, width = x.shape
        pairs = x[:, :-1].reshape(batch, -1, 2 * width)
        third = x[:, 1:].reshape(batch, -1, 2, width)[:, :, 1]
        embedded: Tensor = self.second(torch.cat([pairs, third], dim=2))
        return nn.functional.gelu(embedded)

    def _pairs(self, x: Tensor) -> Tensor:
        """Two steps to a frame. shape: (batch, 2 * frames, size) -> (batch, frames, 2 * size)."""
        paired: Tensor = self.layers_norm(x).unflatten(1, (-1, _STEPS)).flatten(2)
        return paired

    def _finish(self, pairs: Tensor) -> Tensor:
        """Bring frames to our width. shape: (batch, frames, 2 * size) -> (batch, frames, width)."""
        finished: Tensor = self.norm(self.dropout(self.projection(pairs)))
        return finished

    @torch.no_grad()
    def whiten(self, pairs: Tensor) -> None:
        """Let the projection begin as the principal components of what it projects.

        A few of Whisper's channels are a hundred times as large as the others; of a random
        projection little else would be seen, and training would have to find its way out first.

        Args:
            pairs: What :meth:`encode_pairs` makes of some speech. shape: (frames, 2 * size)
        """
        mean = pairs.mean(dim=0)
        centred = pairs - mean
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(pairs))
        width = self.config.width
        if width > len(variances):
            return
        scale = variances[-width:].clamp(min=_LEAST_VARIANCE).rsqrt()
        self.projection.weight.copy_((directions[:, -width:] * scale).T)
        self.projection.bias.copy_(-self.projection.weight @ mean)

    def encode(self, features: Tensor, counts: Tensor, chunk: int | None) -> Tensor:
        """Encode the features of whole utterances.

        In training each begins anywhere in the period of the positions, as a stream's utterances
        do.

        Args:
            features: shape: (batch, 4 * frames + 3, mel_bins)
            counts: Valid frames of each utterance. shape: (batch,)
            chunk: Frames a chunk; None for full context.

        Returns:
            shape: (batch, frames, width)
        """
        return self._finish(self.encode_pairs(features, counts, chunk))

    def encode_pairs(self, features: Tensor, counts: Tensor, chunk: int | None) -> Tensor:
        """As :meth:`encode`, before frames are brought to our width.

        Returns:
            Both steps of each frame, of Whisper's size. shape: (batch, frames, 2 * size)
        """
        x = self._embed(features)
        batch, time = x.shape[:2]
        step = torch.arange(time, device=x.device)
        chunk_steps = time if chunk is None else _STEPS * chunk
        start = step // chunk_steps * chunk_steps  # of the step's chunk
        anchor = start // (_STEPS * _PERIOD) * (_STEPS * _PERIOD)  # where its positions began
        places = (step - anchor).expand(batch, -1)
        if self.training:
            latest = max(1, _STEPS * _PERIOD - time)
            places = places + torch.randint(latest, (batch, 1)).to(x.device)
        x = x + self.positions(places)
        # An utterance without frames sees its padding: seeing nothing at all is NaN.
        mask = (step < _STEPS * counts.clamp(min=1)[:, None])[:, None, None, :]
        if chunk is not None:
            left = _STEPS * self.config.left_frames
            mask = mask & chunk_mask(time, chunk_steps, left, x.device)
            mask = mask & (step >= anchor[:, None])
            # Rows of padding whose whole window is padding too must see something, or they are NaN.
            mask = mask | torch.eye(time, dtype=torch.bool, device=x.device)
        for layer in self.layers:
            x, _, _ = layer(x, None, mask)
        return self._pairs(x)

    def merge_parameters(self) -> None:
        """Nothing is kept apart in training."""

    def forward(
        self, samples: Tensor, sample_counts: Tensor, chunk: int | None
    ) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        See :meth:`cnerta.models.networks.acoustic_encoder.AcousticEncoder.forward`.
        """
        counts = (sample_counts + HOP_SAMPLES - 1) // HOP_SAMPLES
        return self.encode(self.features(samples), counts, chunk), counts

    def forward_chunk(
        self, samples: Tensor, carry: Tensor, position: Tensor, *cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the next chunk of each stream.

        Args and returns are those of
        :meth:`cnerta.models.networks.acoustic_encoder.AcousticEncoder.forward_chunk`; a frame's
        keys in the cache are those of its two steps, one after the other: shape (batch, heads,
        left_frames, 2 * size).
        """
        left = self.config.left_frames
        joined = torch.cat([carry, samples], dim=1)
        x = self._embed(self.filter_bank(joined))
        new = x.shape[1]
        since = (position % _PERIOD)[:, None]  # frames since positions began anew
        x = x + self.positions(_STEPS * since + torch.arange(new, device=x.device))
        # Frame t is in place t % left: how long ago was what is in each place?
        place = torch.arange(left, device=x.device)
        ago = 1 + (position[:, None] - 1 - place) % left
        is_gone = (ago > since).repeat_interleave(_STEPS, dim=1)
        past = torch.zeros_like(is_gone, dtype=x.dtype).masked_fill(is_gone, _NOTHING)
        mask = nn.functional.pad(past, (0, new))[:, None, None, :]
        kept = []
        for layer, keys, values in zip(self.layers, cache[::2], cache[1::2], strict=True):
            earlier = (self._steps(keys), self._steps(values))
            x, key, value = layer(x, earlier, mask)
            kept.append(torch.stack([self._frames(key), self._frames(value)]))
        frames = self._finish(self._pairs(x))
        return frames, joined[:, -CARRY_SAMPLES:], torch.stack(kept)

    def _steps(self, frames: Tensor) -> Tensor:
        """shape: (batch, heads, frames, 2 * size) -> (batch, heads, 2 * frames, size)."""
        return frames.reshape(*frames.shape[:2], -1, self.size)

    def _frames(self, steps: Tensor) -> Tensor:
        """shape: (batch, heads, 2 * frames, size) -> (batch, heads, frames, 2 * size)."""
        return steps.reshape(*steps.shape[:2], -1, _STEPS * self.size)


@torch.no_grad()
def load_streaming_whisper(encoder: StreamingWhisperEncoder, checkpoint: str) -> None:
    """Give an encoder the weights of a checkpoint; what brings them to our width stays random.

    Args:
        encoder: Built from the checkpoint's own configuration.
        checkpoint: A folder or a name on the Hugging Face hub.

    Raises:
        ConfigError: There is no such checkpoint, or it is of another architecture.
    """
    from cnerta.models.networks.pretrained_acoustic import pretrained_weights

    theirs = pretrained_weights(checkpoint)
    try:
        ours = _translated(theirs, len(encoder.layers))
        missing, unexpected = encoder.load_state_dict(ours, strict=False)
    except (KeyError, RuntimeError) as error:
        raise ConfigError(f"expected the weights of {checkpoint} to fit, got: {error}") from error
    assert not unexpected, "only our own names"
    assert {name.split(".")[0] for name in missing} == {"projection", "norm"}, "the rest is theirs"


def _translated(theirs: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Weights of Hugging Face's Whisper encoder under our names."""
    ours = {
        "first.weight": theirs["conv1.weight"].transpose(1, 2).flatten(1),
        "first.bias": theirs["conv1.bias"],
        "second.weight": theirs["conv2.weight"].transpose(1, 2).flatten(1),
        "second.bias": theirs["conv2.bias"],
    }
    names = {
        "layer_norm": "layers_norm",
        **{f"layers.{i}.{t}": f"layers.{i}.{o}" for i in range(layers) for t, o in _NAMES.items()},
    }
    for name, own in names.items():
        for part in ("weight", "bias"):
            ours[f"{own}.{part}"] = theirs[f"{name}.{part}"]
    for i in range(layers):
        query, key, value = (f"layers.{i}.self_attn.{kind}_proj" for kind in ("q", "k", "v"))
        weights = [theirs[f"{name}.weight"] for name in (query, key, value)]
        # Keys have no bias: it would add the same to all scores of a query.
        biases = [theirs[f"{query}.bias"], torch.zeros(len(weights[1])), theirs[f"{value}.bias"]]
        ours[f"layers.{i}.attention.projection.weight"] = torch.cat(weights)
        ours[f"layers.{i}.attention.projection.bias"] = torch.cat(biases)
    return ours


_NAMES = {
    "self_attn_layer_norm": "attention_norm",
    "self_attn.out_proj": "attention.output",
    "final_layer_norm": "feed_forward_norm",
    "fc1": "inner",
    "fc2": "outer",
}
