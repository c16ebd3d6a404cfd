"""A transcript whose clock is off: what becomes of its utterances, with and without the detector.

    python tests/benchmarks/clock_skew.py --manifest FILE [--clips 40] [--skews -3000,0,3000]

Real clips are joined with half a second of silence between them, so where each one lies is known
exactly. Each one's text is sent as final 300 ms after its end, with its true times moved by a
constant. Counted are the finals answered with audio, and the characters whose time is within
120 ms of what the same model says with true times. ``tight`` gives the times of the speech itself,
``padded`` those of the whole clip, with the silence before and after.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.geometry import HOP_SAMPLES
from cnerta.models.runtime.geometry import SAMPLE_RATE as RATE
from cnerta.models.runtime.inference import Model
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.outgoing.outbox import Outbox
from cnerta.streamer.session.session import Session
from cnerta.streamer.session.work import LANES, TagWork
from cnerta.streamer.wire.messages import SessionStart, Transcript, UtteranceFinal, WarningMessage

GAP_MS = 500
FINAL_AFTER_MS = 300
RIGHT_MS = 120


class Believing(Session):
    """A session that takes a transcript's times as they are."""

    def _may_be_elsewhere(self, heard: object) -> bool:
        return False

    def _measure_skew(self, heard: object, answer: object) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip in the joined recording; times of the whole clip."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run.

    Attributes:
        finals: In the order of the clips.
        warnings: Details of the warnings of a skewed clock.
        calls: Calls of the tagger.
    """

    finals: list[UtteranceFinal]
    warnings: list[str]
    calls: int


def join(manifest: Path, count: int) -> tuple[np.ndarray, list[Clip]]:
    """Join every so-many-th clip of a manifest, so that all speakers are heard."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    pieces = [np.zeros(RATE, np.float32)]
    clips: list[Clip] = []
    at = RATE
    for row in rows[:: max(1, len(rows) // count)][:count]:
        samples, rate = soundfile.read(manifest.parent / row["audio"], dtype="float32")
        assert rate == RATE
        clips.append(Clip(row["text"], at * 1000 // RATE, (at + len(samples)) * 1000 // RATE))
        pieces += [samples, np.zeros(GAP_MS * RATE // 1000, np.float32)]
        at += len(samples) + GAP_MS * RATE // 1000
    pieces.append(np.zeros(5 * RATE, np.float32))
    return np.concatenate(pieces), clips


def run(
    model: Model,
    kind: type[Session],
    audio: np.ndarray,
    clips: Sequence[Clip],
    given: Sequence[tuple[int, int]],
) -> Outcome:
    """Stream it all through a session."""
    engine, outbox = Engine(model), Outbox(1 << 24)
    session = kind(model.bundle, SessionStart(), SessionLimits(), outbox)
    pcm = (audio * 32767).astype("<i2")
    finals: list[UtteranceFinal] = []
    warnings: list[str] = []
    calls = position = 0

    def work(now: float) -> None:
        nonlocal calls
        while True:
            given = [w for lane in LANES if (w := session.next_work(lane, now)) is not None]
            if not given:
                break
            for piece in given:
                calls += isinstance(piece, TagWork)
                session.work_done(piece, engine.run(piece), now)
        while (message := outbox.pop()) is not None:
            if isinstance(message, UtteranceFinal):
                finals.append(message)
            elif isinstance(message, WarningMessage) and message.name == "transcript_clock_skew":
                warnings.append(f"{message.detail} (after {len(finals)} finals)")

    for number, (clip, (start_ms, end_ms)) in enumerate(zip(clips, given, strict=True)):
        until = (clip.end_ms + FINAL_AFTER_MS) * RATE // 1000
        while position < until:
            session.add_audio(pcm[position : min(until, position + HOP_SAMPLES)].tobytes())
            position = min(until, position + HOP_SAMPLES)
            work(position / RATE)
        session.add_transcript(
            Transcript(
                utterance=f"u{number}",
                revision=1,
                final=True,
                text=clip.text,
                start_ms=max(0, start_ms),
                end_ms=max(0, end_ms),
            ),
            position / RATE,
        )
        work(position / RATE)
    return Outcome(finals, warnings, calls)


def compare(outcome: Outcome, reference: Outcome) -> tuple[float, float]:
    """Share of finals answered with audio, and of characters at the right time."""
    used = sum(f.audio_used for f in outcome.finals) / len(outcome.finals)
    near = total = 0
    for own, true in zip(outcome.finals, reference.finals, strict=True):
        if not true.audio_used:
            continue
        total += len(true.text)
        if own.time_source == "alignment":
            near += sum(
                abs(a[0] - b[0]) <= RIGHT_MS
                for a, b in zip(own.characters, true.characters, strict=True)
            )
    return used, near / total


def main(
    manifest: Annotated[Path, typer.Option(help="JSON lines with audio and text.")],
    clips: Annotated[int, typer.Option(help="How many.")] = 40,
    skews: Annotated[str, typer.Option(help="Milliseconds, with commas.")] = (
        "-3000,-1000,-500,-300,-150,0,150,300,500,1000,3000"
    ),
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle.")] = None,
) -> None:
    """Print a table."""
    model = Model.load(find_bundle(bundle), device="cpu")
    audio, where = join(manifest, clips)
    padded = [(c.start_ms, c.end_ms) for c in where]
    reference = run(model, Believing, audio, where, padded)
    speech = [
        (f.characters[0][0], f.characters[-1][1]) if f.audio_used else times
        for f, times in zip(reference.finals, padded, strict=True)
    ]
    print("| times | skew ms | detector | finals with audio | characters right | tagger calls |")
    print("|---|---|---|---|---|---|")
    for name, times in (("padded", padded), ("tight", speech)):
        for skew_ms in map(int, skews.split(",")):
            given = [(start + skew_ms, end + skew_ms) for start, end in times]
            for kind, word in ((Believing, "without"), (Session, "with")):
                outcome = run(model, kind, audio, where, given)
                used, right = compare(outcome, reference)
                print(
                    f"| {name} | {skew_ms:+d} | {word} | {used:.0%} | {right:.1%} | "
                    f"{outcome.calls} |",
                    flush=True,
                )
                for warning in outcome.warnings:
                    print(f"<!-- {warning} -->")


if __name__ == "__main__":
    typer.run(main)
