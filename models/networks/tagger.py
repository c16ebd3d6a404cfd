"""The whole model: text encoder x fusion x CTC, under a CRF (figure 2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cnerta.models.config import LEXICON_ENCODERS, AcousticConfig, ModelConfig, TextConfig
from cnerta.models.errors import ConfigError
from cnerta.models.networks.acoustic_encoder import AcousticEncoder
from cnerta.models.networks.audio_head import AudioHead
from cnerta.models.networks.bilstm import BiLstm, BiLstmEncoder
from cnerta.models.networks.crf import ConstrainedCrf
from cnerta.models.networks.cross_modal_attention import build_fusion, posterior_features
from cnerta.models.networks.ctc import CtcHead, ctc_loss
from cnerta.models.networks.lattice.encoder import LatticeEncoder
from cnerta.models.networks.no_audio import NoAcousticEncoder, NoCtcHead
from cnerta.models.networks.reading_embedding import ChosenReadings
from cnerta.models.networks.softlexicon import SoftLexiconEncoder
from cnerta.models.networks.word_kinds import WordKinds
from cnerta.models.networks.zen import ZenEncoder
from cnerta.models.runtime.labels import LabelScheme
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.gazetteer import Gazetteer
from cnerta.models.text.lexicon import Lexicon
from cnerta.models.text.word_files import Words

if TYPE_CHECKING:
    from cnerta.models.networks.pretrained_acoustic import PretrainedAcousticEncoder
    from cnerta.models.networks.pretrained_text import PretrainedEncoder
    from cnerta.models.networks.streaming_whisper import StreamingWhisperEncoder

__all__ = ["BREAK_LEVELS", "SpeechTagger", "TaggerOutput"]

BREAK_LEVELS = 5
"""None, prosodic word, prosodic phrase, intonation phrase, utterance."""


@dataclass(frozen=True, slots=True)
class TaggerOutput:
    """What the tagger computes.

    Attributes:
        emissions: CRF emission scores. shape: (batch, length, tags)
        log_probabilities: Masked CTC, column 0 the blank, column 1 + u the character u.
            shape: (batch, time, 1 + length)
        breaks: Scores of how strong a boundary is heard after each character; None for a model that
            has no prosody task. Only for training. shape: (batch, length, 5)
        text_emissions: Emission scores from text alone, of a model with ``model.fusion.gated``.
            Only for training. shape: (batch, length, tags)
    """

    emissions: Tensor
    log_probabilities: Tensor
    breaks: Tensor | None = None
    text_emissions: Tensor | None = None


class SpeechTagger(nn.Module):
    """A model of the paper's Table 3 as its configuration composes it."""

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        scheme: LabelScheme,
        text_architecture: str = "",
        lexicon: Words | None = None,
        acoustic_architecture: str = "",
    ) -> None:
        """Build with random weights.

        Args:
            config: What the model is composed of.
            vocabulary: Characters and acoustic units.
            scheme: Tags.
            text_architecture: Of a pretrained text encoder, see
                :func:`cnerta.models.networks.pretrained_text.pretrained_architecture` and
                :func:`cnerta.models.networks.zen.zen_architecture`.
            lexicon: Words, for a text encoder with a lexicon, or the gazetteer of a model that
                has one.
            acoustic_architecture: Of a pretrained acoustic encoder, see
                :func:`cnerta.models.networks.pretrained_acoustic.acoustic_architecture`.

        Raises:
            ConfigError: The model needs one of them and there is none, or the reverse.
        """
        super().__init__()
        self.lexicon = lexicon
        self.text_architecture = text_architecture
        self.acoustic_architecture = acoustic_architecture
        self.config = config
        self.vocabulary = vocabulary
        self.scheme = scheme
        words = lexicon if isinstance(lexicon, Lexicon) else None
        self.text = _text_encoder(config.text, vocabulary, text_architecture, words)
        self.word_kinds = _word_kinds(config, lexicon)
        self.acoustic: (
            AcousticEncoder
            | PretrainedAcousticEncoder
            | StreamingWhisperEncoder
            | NoAcousticEncoder
        )
        self.ctc: CtcHead | NoCtcHead
        if config.audio_use == "none":
            self.acoustic, self.ctc = NoAcousticEncoder(config.acoustic), NoCtcHead()
        else:
            self.acoustic = _acoustic_encoder(config.acoustic, acoustic_architecture)
            tied = config.ctc.units == "pronunciations"
            self.ctc = CtcHead(vocabulary, config.acoustic.width, tied=tied)
        width = self.text.width
        self.fusion = build_fusion(config.fusion, width, config.acoustic.width)
        if self.fusion is not None:
            alone = config.fusion.tagger_input == "fused"
            width = self.fusion.width + (0 if alone else width)
        self.breaks: nn.Linear | None = None
        if self.fusion is not None and config.fusion.prosody:
            self.breaks = nn.Linear(self.fusion.width, BREAK_LEVELS)
        width += config.fusion.posterior_features
        width += self.word_kinds.width if self.word_kinds else 0
        self.chosen_readings: ChosenReadings | None = None
        if config.fusion.readings:
            self.chosen_readings = ChosenReadings(vocabulary, config.fusion.readings)
            width += config.fusion.readings
        self.context: BiLstm | None = None
        if config.fusion.context:
            self.context = BiLstm(width, config.fusion.context)
            width = config.fusion.context + config.fusion.readings
        dropout = config.tagger_dropout
        self.dropout = nn.Dropout(config.text.dropout if dropout is None else dropout)
        self.emissions = nn.Linear(width, len(scheme))
        self.crf = ConstrainedCrf(scheme)
        self.audio_head: AudioHead | None = None
        if config.fusion.gated:
            kinds = self.word_kinds.width if self.word_kinds else 0
            self.audio_head = AudioHead(config, vocabulary, self.text.width, kinds, len(scheme))

    def forward(
        self,
        characters: Tensor,
        counts: Tensor,
        frames: Tensor,
        frame_counts: Tensor,
        matches: Tensor | None = None,
    ) -> TaggerOutput:
        """Score tags and characters.

        Args:
            characters: Ids. shape: (batch, length)
            counts: Valid characters. shape: (batch,)
            frames: Acoustic frames; at least one, which may be padding. shape: (batch, time, width)
            frame_counts: Valid frames, 0 where there is no audio. shape: (batch,)
            matches: Words of the lexicon or gazetteer in each text, see
                :mod:`cnerta.models.text.lexicon`; a model without does not look at them.
                shape: (batch, matches, 3)
        """
        log_probabilities = self.ctc(frames, characters)
        assert self.lexicon is None or matches is not None, "a lexicon needs its matches"
        if isinstance(self.lexicon, Lexicon):
            encoded = self.text(characters, counts, matches)
        else:
            encoded = self.text(characters, counts)
        texts = (encoded, characters, counts, matches)
        if self.audio_head is None:
            emissions, breaks = self._answer(self, texts, (frames, frame_counts, log_probabilities))
            return TaggerOutput(emissions, log_probabilities, breaks)
        # As if there were no audio: one frame, which is padding.
        nothing = (frames[:, :1], torch.zeros_like(frame_counts), log_probabilities[:, :1])
        alone, _ = self._answer(self, texts, nothing)
        sound = (frames, frame_counts, log_probabilities.detach())
        heard, breaks = self._answer(self.audio_head, texts, sound)
        share = self.audio_head.gate(
            log_probabilities.detach(), counts, frame_counts, alone.detach(), heard.detach()
        )
        return TaggerOutput(alone + share * (heard - alone), log_probabilities, breaks, alone)

    def _answer(
        self,
        head: SpeechTagger | AudioHead,
        texts: tuple[Tensor, Tensor, Tensor, Tensor | None],
        sound: tuple[Tensor, Tensor, Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        """Emissions of a head, and its breaks.

        Args:
            head: Whose fusion, context and emission scores.
            texts: Text representation, characters, their counts and matches, as in :meth:`forward`.
            sound: Frames, their counts and masked CTC, as in :meth:`forward`.
        """
        encoded, characters, counts, matches = texts
        frames, frame_counts, log_probabilities = sound
        breaks = None
        if head.fusion is not None:
            # Only the CTC task trains what guides attention, not the entity loss.
            fused = head.fusion(encoded, counts, frames, frame_counts, log_probabilities.detach())
            alone = self.config.fusion.tagger_input == "fused"
            encoded = fused if alone else torch.cat([encoded, fused], dim=2)
            breaks = self.breaks(fused) if self.breaks is not None else None
        if self.config.fusion.posterior_features:
            features = posterior_features(
                log_probabilities, frame_counts, self.config.fusion.posterior_features
            )
            encoded = torch.cat([encoded, features], dim=2)
        # These two last, so that a trained model can be given them (train/loop/continued_model).
        if self.word_kinds is not None:
            encoded = torch.cat([encoded, self.word_kinds(matches, characters.shape[1])], dim=2)
        readings: Tensor | None = None
        if head.chosen_readings is not None:
            assert isinstance(self.ctc, CtcHead), "checked by the settings"
            chosen = self.ctc.chosen(frames, characters, frame_counts, log_probabilities)
            readings = head.chosen_readings(self.ctc.readings[characters], chosen.detach())
            encoded = torch.cat([encoded, readings], dim=2)
        if head.context is not None:
            encoded = head.context(head.dropout(encoded), counts)
            if readings is not None:
                # Also past the context: what a reading says of its own character is learnt faster.
                encoded = torch.cat([encoded, readings], dim=2)
        return head.emissions(head.dropout(encoded)), breaks

    def entity_loss(self, output: TaggerOutput, tags: Tensor, counts: Tensor) -> Tensor:
        """CRF negative log-likelihood, mean over sentences (L_crf of equation 3)."""
        return self.entity_losses(output.emissions, tags, counts).mean()

    def entity_losses(self, emissions: Tensor, tags: Tensor, counts: Tensor) -> Tensor:
        """The same of each sentence. shape: (batch,)."""
        index = torch.arange(tags.shape[1], device=tags.device)
        losses: Tensor = -self.crf(
            emissions.float(), tags, mask=index < counts[:, None], reduction="none"
        )
        return losses

    def masked_ctc_loss(
        self, output: TaggerOutput, characters: Tensor, counts: Tensor, frame_counts: Tensor
    ) -> Tensor:
        """Masked CTC loss, mean over sentences with audio (L_ctc of equation 3).

        Of each sentence the loss a character, or the whole: ``model.ctc.scale``.
        """
        heard = frame_counts > 0
        # Equal characters share a column, the first of them: a blank must part equal neighbours.
        same = characters[:, :, None] == characters[:, None, :]
        targets = 1 + same.int().argmax(dim=2)
        losses = ctc_loss(output.log_probabilities.float(), targets, frame_counts, counts)
        if self.config.ctc.scale == "character":
            losses = losses / counts.clamp(min=1)
        return (losses * heard).sum() / heard.sum().clamp(min=1)


def _word_kinds(config: ModelConfig, lexicon: Words | None) -> WordKinds | None:
    gazetteer = lexicon if isinstance(lexicon, Gazetteer) else None
    if (gazetteer is not None) != bool(config.gazetteer.lists):
        wanted = "no gazetteer" if gazetteer else "a gazetteer (model.gazetteer.lists)"
        raise ConfigError(f"expected {wanted} for this model")
    return WordKinds(config.gazetteer, gazetteer) if gazetteer else None


def _acoustic_encoder(
    config: AcousticConfig, architecture: str
) -> AcousticEncoder | PretrainedAcousticEncoder | StreamingWhisperEncoder:
    if config.encoder == "pretrained" and config.streaming:
        from cnerta.models.networks.streaming_whisper import StreamingWhisperEncoder

        return StreamingWhisperEncoder(config, architecture)
    if config.encoder == "pretrained":
        # Only these models need the library, which takes seconds to import.
        from cnerta.models.networks.pretrained_acoustic import PretrainedAcousticEncoder

        return PretrainedAcousticEncoder(config, architecture)
    return AcousticEncoder(config)


def _text_encoder(
    config: TextConfig, vocabulary: Vocabulary, architecture: str, lexicon: Lexicon | None
) -> BiLstmEncoder | SoftLexiconEncoder | LatticeEncoder | PretrainedEncoder | ZenEncoder:
    if (lexicon is not None) != (config.encoder in LEXICON_ENCODERS):
        wanted = "no lexicon" if lexicon else "a lexicon (model.text.lexicon)"
        raise ConfigError(f"expected {wanted} for the text encoder {config.encoder!r}")
    if config.encoder == "pretrained":
        # Only these models need the library, which takes seconds to import.
        from cnerta.models.networks.pretrained_text import PretrainedEncoder

        return PretrainedEncoder(config, architecture, vocabulary)
    if config.encoder == "zen" and lexicon is not None:
        return ZenEncoder(config, architecture, vocabulary, lexicon)
    if lexicon is not None:
        knowing = LatticeEncoder if config.encoder == "lattice" else SoftLexiconEncoder
        return knowing(config, len(vocabulary), lexicon)
    return BiLstmEncoder(config, len(vocabulary))
