"""Runs a bundle's graphs on onnxruntime, whole batches at a time.

Stateless towards its callers: a stream's state goes in and comes out as a value, so one model
serves any number of streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.alignment import Alignment, align
from cnerta.models.runtime.buffers import joined
from cnerta.models.runtime.bundle import (
    ACOUSTIC_FILE,
    READINGS_FILE,
    TAGGER_FILE,
    Bundle,
    load_bundle,
)
from cnerta.models.runtime.calibration import Calibration
from cnerta.models.runtime.crf_search import (
    LATTICE_FILE,
    SCORES_FILE,
    CrfParameters,
    GraphSearch,
    Search,
)
from cnerta.models.runtime.decoding import CrfDecoder, ScoredSpan, SpanHint
from cnerta.models.runtime.encoding.choice import choose_encoder
from cnerta.models.runtime.encoding.host import HostEncoder
from cnerta.models.runtime.encoding.plausible import check_plausible
from cnerta.models.runtime.encoding.state import AcousticState, ChunkEncoder
from cnerta.models.runtime.graph_session import GraphSession
from cnerta.models.runtime.onnx_sessions import Device, choose_device, open_sessions
from cnerta.models.runtime.readings import CharacterReading, heard_readings
from cnerta.models.runtime.self_test import SelfTest, check_model, read_self_test
from cnerta.models.text.lexicon import pad_matches

__all__ = ["AcousticState", "Device", "Model", "Tagged"]

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tagged:
    """The tagger's answer to one text.

    Attributes:
        spans: Entities in priority order.
        alignment: Frames of each character; None without audio, with too little of it, or of a
            model without a CTC task.
        readings: How characters with several pronunciations were read, if that was asked for.
    """

    spans: tuple[ScoredSpan, ...]
    alignment: Alignment | None
    readings: tuple[CharacterReading, ...] = ()


class Model:
    """A loaded bundle, ready to run.

    Attributes:
        bundle: What was loaded.
        device: The execution provider in use.
        encoded_samples: Samples encoded so far, over all streams.
    """

    def __init__(
        self,
        bundle: Bundle,
        search: Callable[[CrfParameters], Search],
        acoustic: Any,
        tagger: Any,
        readings: Any = None,
        *,
        self_test: SelfTest | None = None,
        encoder: ChunkEncoder | None = None,
    ) -> None:
        """Put loaded parts together; :meth:`load` loads them.

        Args:
            bundle: What they are of.
            search: Makes what searches for the best tags.
            acoustic: Session of the acoustic graph.
            tagger: Of the tagger.
            readings: Of the readings' graph, if the bundle has one.
            self_test: The bundle's golden answers, if it has some.
            encoder: Encodes the chunks of a streaming model; None: with caches that are values.
        """
        self.bundle = bundle
        self.encoded_samples = 0
        self._search = search
        self._acoustic = acoustic
        self._tagger = tagger
        self._readings = readings
        self._self_test = self_test
        self._sessions = [s for s in (acoustic, tagger, readings) if isinstance(s, GraphSession)]
        self._decoder = CrfDecoder(bundle.scheme, bundle.crf, bundle.calibration, search)
        self._encoder = encoder or HostEncoder(bundle.geometry, acoustic)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: Device = "auto",
        threads: int = 1,
        check: bool = True,
        resident_streams: int | None = None,
    ) -> Model:
        """Load a bundle.

        Args:
            path: The bundle's folder.
            device: ``cuda`` and ``tensorrt`` insist on a GPU, ``auto`` takes one by CUDA if the
                runtime offers it.
            threads: CPU threads of one call.
            check: Compare with the golden answers in the bundle.
            resident_streams: Streams whose caches stay on the device, see
                :func:`cnerta.models.runtime.encoding.choice.choose_encoder`.

        Raises:
            BundleError: The bundle cannot be used, or does not say what it said when exported.
            InferenceError: onnxruntime is missing, has not the device that was asked for, or
                refuses the graphs.
        """
        bundle = load_bundle(path)
        choice = choose_device(device)
        acoustic, tagger = open_sessions(
            [path / ACOUSTIC_FILE, path / TAGGER_FILE], device=device, threads=threads
        )
        works = acoustic.get_providers()[0] == choice.provider
        if works:
            logger.info("graphs run on %s", choice)
        else:
            logger.warning(
                "graphs run on %s: %s was offered, and does not work here",
                acoustic.get_providers()[0],
                choice.provider,
            )
        encoder = choose_encoder(
            bundle,
            acoustic,
            choice.device if works else "cpu",
            resident_streams=resident_streams,
            threads=threads,
        )
        return cls.assemble(
            bundle, acoustic, tagger, encoder=encoder, threads=threads, device=device, check=check
        )

    @classmethod
    def assemble(
        cls,
        bundle: Bundle,
        acoustic: Any,
        tagger: Any,
        *,
        encoder: ChunkEncoder | None = None,
        threads: int = 1,
        device: Device = "cpu",
        check: bool = True,
    ) -> Model:
        """Put what runs the large graphs together with the small ones, which run here.

        Args:
            bundle: What the graphs are of.
            acoustic: Runs the acoustic graph.
            tagger: Runs the tagger.
            encoder: See the constructor.
            threads: CPU threads of one call.
            device: Of the readings.
            check: Compare with the golden answers in the bundle.

        Raises:
            BundleError: It does not say what it said when exported.
            InferenceError: onnxruntime is missing or refuses the graphs.
        """
        readings = None
        if bundle.has_readings:
            path = bundle.path / READINGS_FILE
            (readings,) = open_sessions([path], device=device, threads=threads)
        # Loops of small steps: nothing for a GPU.
        best_scores, lattice = open_sessions([SCORES_FILE, LATTICE_FILE], threads=threads)
        if bundle.lexicon is not None:
            bundle.lexicon.prepare()
        search = partial(GraphSearch, best_scores=best_scores, lattice=lattice)
        self_test = read_self_test(bundle.path)
        model = cls(
            bundle, search, acoustic, tagger, readings, self_test=self_test, encoder=encoder
        )
        if check and self_test is None:
            logger.warning("bundle %s has no self-test: whether it works is not known", bundle.name)
        if check:
            model.check()
            model.encoded_samples = 0
        logger.info("bundle %s runs on %s", bundle.name, model.device)
        return model

    def calibrated(self, calibration: Calibration) -> Model:
        """The same model with other confidences."""
        bundle = replace(self.bundle, calibration=calibration)
        return Model(
            bundle,
            self._search,
            self._acoustic,
            self._tagger,
            self._readings,
            self_test=self._self_test,
            encoder=self._encoder,
        )

    @property
    def device(self) -> str:
        """Name of the execution provider that runs the graphs."""
        providers: list[str] = self._acoustic.get_providers()
        return providers[0]

    @property
    def device_faults(self) -> int:
        """Calls that failed on a GPU and were made on the CPU, so far."""
        return self._encoder.faults + sum(session.faults for session in self._sessions)

    def check(self) -> None:
        """Compare with the golden answers, if the bundle has some.

        Raises:
            BundleError: The model says something else, or nothing that makes sense.
        """
        if self._self_test is not None:
            check_model(self, self._self_test)

    def reopen(self) -> None:
        """Open the graphs anew, because a call of one hangs.

        Raises:
            Exception: What the runtime raises.
        """
        for session in self._sessions:
            session.reopen()
        self._encoder.reopen()

    def encode(
        self, samples: Floats, states: Sequence[AcousticState]
    ) -> list[tuple[Floats, AcousticState]]:
        """Encode one chunk of each stream.

        Args:
            samples: New samples, 16 kHz, -1 to 1. shape: (batch, n * hop_samples)
            states: State of each stream before them.

        Returns:
            For each stream its n new frames, shape (n, width), and its next state.

        Raises:
            InferenceError: The graph gives frames that are no numbers, or absurd ones.
        """
        assert self.bundle.geometry.streaming, "a full-context model encodes whole utterances"
        batch, count = samples.shape
        assert count % self.bundle.geometry.hop_samples == 0, "whole frames only"
        assert batch == len(states), "one state a stream"
        encoded = self._encoder.encode(samples, states)
        self.encoded_samples += batch * count
        return encoded

    def encode_utterances(self, utterances: Sequence[Floats]) -> list[Floats]:
        """Encode whole utterances with a full-context model.

        Args:
            utterances: Samples, 16 kHz, -1 to 1. shape of each: (n * hop_samples,)

        Returns:
            Of each utterance its n frames. shape of each: (n, width)

        Raises:
            InferenceError: The graph gives frames that are no numbers, or absurd ones.
        """
        assert not self.bundle.geometry.streaming, "a streaming model encodes in chunks"
        hop = self.bundle.geometry.hop_samples
        assert all(len(u) % hop == 0 for u in utterances), "whole frames only"
        samples = np.zeros((len(utterances), max(map(len, utterances))), np.float32)
        for row, utterance in zip(samples, utterances, strict=True):
            row[: len(utterance)] = utterance
        counts = np.array([len(u) // hop for u in utterances], np.int64)
        (frames,) = self._acoustic.run(["frames"], {"samples": samples, "frame_count": counts})
        for row, count in zip(frames, counts, strict=True):
            check_plausible("frames", row[:count])
        self.encoded_samples += hop * int(counts.sum())
        return [f[:n].copy() for f, n in zip(frames, counts, strict=True)]

    def encode_recording(self, samples: Floats) -> Floats:
        """Encode a whole recording: in usual chunks, as a stream would be, or at once.

        Args:
            samples: 16 kHz, -1 to 1; filled up with zeros to whole frames. shape: (samples,)

        Returns:
            shape: (frames, width)
        """
        geometry = self.bundle.geometry
        padded = np.pad(samples, (0, -len(samples) % geometry.hop_samples))
        if not geometry.streaming and len(padded):
            return self.encode_utterances([padded])[0]
        state = AcousticState.initial(geometry)
        pieces = [np.zeros((0, geometry.width), np.float32)]
        for start in range(0, len(padded), geometry.chunk_samples):
            chunk = padded[None, start : start + geometry.chunk_samples]
            ((piece, state),) = self.encode(chunk, [state])
            pieces.append(piece)
        return np.concatenate(pieces)

    def tag(
        self,
        texts: Sequence[str],
        frames: Sequence[Floats],
        hints: Sequence[Sequence[SpanHint]] = (),
    ) -> list[Tagged]:
        """Find the entities of each text, with its audio where there is any.

        Args:
            texts: Normalised texts, each of at most ``bundle.max_characters``.
            frames: Frames of each utterance; none at all gives the answer from text alone.
                shape of each: (time, width)
            hints: Outside evidence for entities of each text; empty for none at all.

        Raises:
            InferenceError: The graph gives scores that are no numbers, or absurd ones.
        """
        lengths = [len(t) for t in texts]
        if not any(lengths):
            return [Tagged((), None) for _ in texts]
        ids = [self.bundle.vocabulary.encode(t) for t in texts]
        emissions, log_probabilities = self._run_tagger(texts, ids, frames)
        alignments: Sequence[Alignment | None] = [None] * len(texts)
        if self.bundle.audio_use == "aligned":
            counts = [len(f) for f in frames]
            alignments = align(log_probabilities, counts, ids, self.bundle.blank_penalty)
        self._listen(emissions, alignments, texts, ids)
        for row, text, n in zip(emissions, texts, lengths, strict=True):
            row[:n] = self._decoder.with_full_names(row[:n], text)
        for i, (row_hints, n) in enumerate(zip(hints, lengths, strict=bool(hints))):
            if row_hints:
                emissions[i, :n] = self._decoder.with_hints(emissions[i, :n], row_hints)
        spans = self._decoder.decode(emissions, lengths)
        return [Tagged(s, a) for s, a in zip(spans, alignments, strict=True)]

    def _listen(
        self,
        emissions: Floats,
        alignments: Sequence[Alignment | None],
        texts: Sequence[str],
        ids: Sequence[npt.NDArray[np.int64]],
    ) -> None:
        """Move emissions towards the answer from text alone, where the audio fits its text badly.

        Audio that fits well costs nothing; the others' texts go through the graph once more.
        """
        listening = self.bundle.listening
        if listening is None:
            return
        scores = {i: a.score for i, a in enumerate(alignments) if a is not None}
        unsure = [i for i, score in scores.items() if listening.share(score) < 1.0]
        if not unsure:
            return
        nothing = np.zeros((0, self.bundle.geometry.width), np.float32)
        chosen, own = [texts[i] for i in unsure], [ids[i] for i in unsure]
        alone, _ = self._run_tagger(chosen, own, [nothing] * len(unsure))
        for i, row in zip(unsure, alone, strict=True):
            n = len(texts[i])
            emissions[i, :n] = listening.combined(emissions[i, :n], row[:n], scores[i])

    def scores(self, text: str, frames: Floats) -> Floats:
        """What the tagger's graph gives for the tags of one text.

        Returns:
            shape: (length, tags)

        Raises:
            InferenceError: See :meth:`tag`.
        """
        emissions, _ = self._run_tagger([text], [self.bundle.vocabulary.encode(text)], [frames])
        row: Floats = emissions[0]
        return row

    def _run_tagger(
        self,
        texts: Sequence[str],
        ids: Sequence[npt.NDArray[np.int64]],
        frames: Sequence[Floats],
    ) -> tuple[Floats, Floats]:
        lengths = [len(t) for t in texts]
        counts = [len(f) for f in frames]
        characters = np.zeros((len(texts), max(lengths)), np.int64)
        for row, own in zip(characters, ids, strict=True):
            row[: len(own)] = own
        padding = np.zeros((max(1, *counts), self.bundle.geometry.width), np.float32)
        filled = (part for f in frames for part in (f, padding[len(f) :]))
        audio = joined(filled).reshape(len(texts), *padding.shape)
        feed = {
            "characters": characters,
            "character_count": np.array(lengths, np.int64),
            "frames": audio,
            "frame_count": np.array(counts, np.int64),
        }
        if self.bundle.lexicon is not None:
            feed["matches"] = pad_matches([self.bundle.lexicon.match(t) for t in texts])
        emissions, log_probabilities = self._tagger.run(["emissions", "log_probabilities"], feed)
        for row, n in zip(emissions, lengths, strict=True):
            check_plausible("scores of tags", row[:n])
        return emissions, log_probabilities

    def read(self, text: str, frames: Floats, tagged: Tagged) -> Tagged:
        """Add to an answer how the characters with several pronunciations were read.

        Only for a bundle that ``has_readings``.

        Args:
            text: The text that was tagged.
            frames: Its frames. shape: (time, width)
            tagged: The answer; without an alignment nothing is added.
        """
        if tagged.alignment is None:
            return tagged
        ids = self.bundle.vocabulary.encode(text)
        found = heard_readings(
            self.bundle.vocabulary, ids, frames, tagged.alignment, self.score_units
        )
        return replace(tagged, readings=found)

    def score_units(self, frames: Floats, units: npt.NDArray[np.int64]) -> Floats:
        """Score the blank and acoustic units at every frame; of a bundle that ``has_readings``.

        Args:
            frames: shape: (time, width)
            units: Numbers of units. shape: (count,)

        Returns:
            Not normalised, the blank first. shape: (time, 1 + count)
        """
        scores: Floats
        (scores,) = self._readings.run(["scores"], {"frames": frames, "units": units})
        return scores
