"""What revisions and time cost one session: no network, no pacing, one thread.

    python tests/benchmarks/session_cost.py [--minutes 60] [--manifest FILE]

Revisions: the same ten seconds of audio with 1 and with 20 revisions, CPU time against CPU time;
and every sample encoded exactly once in both. Growth: CPU seconds a second of audio and resident
memory early and late in one long session of finals with three revisions a second.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.geometry import SAMPLE_RATE as RATE
from cnerta.models.runtime.inference import Model
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.outgoing.outbox import Outbox
from cnerta.streamer.session.session import Session
from cnerta.streamer.session.work import LANES, Lane
from cnerta.streamer.wire.messages import SessionStart, Transcript, UtteranceFinal
from cnerta.streamer.wire.parts import AudioFormat

FRAME = RATE * 40 // 1000
DEMO = Path(__file__).parents[2] / "streamer" / "demo"


class Driver:
    """A session with its engine, run to completion after every input."""

    def __init__(self, model: Model) -> None:
        self.engine = Engine(model)
        self.outbox = Outbox(1 << 20)
        start = SessionStart(audio=AudioFormat(encoding="pcm_s16le", sample_rate=RATE, channels=1))
        self.session = Session(model.bundle, start, SessionLimits(), self.outbox)
        self.now = 0.0
        self.finals = 0

    def audio(self, pcm: bytes) -> None:
        self.now += len(pcm) / 2 / RATE
        self.session.add_audio(pcm)
        self.run()

    def transcript(self, utterance: str, revision: int, text: str, *, final: bool) -> None:
        message = Transcript(utterance=utterance, revision=revision, text=text, final=final)
        self.session.add_transcript(message, self.now)
        self.run()

    def run(self) -> None:
        while any(self.run_lane(lane) for lane in LANES):
            pass
        while (message := self.outbox.pop()) is not None:
            self.finals += isinstance(message, UtteranceFinal)

    def run_lane(self, lane: Lane) -> bool:
        work = self.session.next_work(lane, self.now)
        if work is not None:
            self.session.work_done(work, self.engine.run(work), self.now)
        return work is not None


def read_clips(manifest: Path | None) -> list[tuple[bytes, str]]:
    """PCM and text of clips: of a manifest, or of the demo."""
    path = manifest or DEMO / "demo.json"
    content = path.read_text(encoding="utf-8")
    rows = (
        [json.loads(line) for line in content.splitlines()[:100]]
        if manifest
        else json.loads(content)["recordings"]
    )
    clips = []
    for row in rows:
        samples, rate = soundfile.read(path.parent / row["audio"], dtype="int16")
        assert rate == RATE, f"expected 16 kHz, got {rate}"
        clips.append((samples.tobytes(), row["text"]))
    return clips


def ten_seconds(clips: list[tuple[bytes, str]]) -> tuple[bytes, str]:
    """Whole clips up to ten seconds, so that the text is what is said; silence fills up."""
    pcm, text = b"", ""
    for own, said in clips:
        if len(pcm) + len(own) <= 2 * 10 * RATE:
            pcm, text = pcm + own, text + said
    return pcm + bytes(2 * 10 * RATE - len(pcm)), text


def revisions(model: Model, clips: list[tuple[bytes, str]], count: int) -> tuple[float, int]:
    """CPU seconds and samples encoded for about ten seconds in ``count`` revisions."""
    pcm, text = ten_seconds(clips)
    driver, before = Driver(model), model.encoded_samples
    began = time.process_time()
    done = 0
    for position in range(0, len(pcm), 2 * FRAME):
        driver.audio(pcm[position : position + 2 * FRAME])
        due = int((position + 2 * FRAME) / len(pcm) * count)
        if due > done:
            done = due
            shown = text[: len(text) * done // count]
            driver.transcript("u", done, shown, final=done == count)
    assert driver.finals == 1
    return time.process_time() - began, model.encoded_samples - before


def minutes(model: Model, clips: list[tuple[bytes, str]], count: int) -> Iterator[dict[str, float]]:
    """CPU and memory of each minute of one long session."""
    driver = Driver(model)
    silence = bytes(2 * RATE)
    number, spent, at = 0, time.process_time(), 0.0
    while at < 60 * count:
        pcm, text = clips[number % len(clips)]
        number += 1
        pcm += silence
        steps = max(1, len(pcm) // (2 * RATE // 3))
        size = -(-len(pcm) // steps // 2) * 2
        for i in range(steps):
            driver.audio(pcm[i * size : (i + 1) * size])
            shown = len(text) * (i + 1) // steps
            driver.transcript(f"u{number}", i + 1, text[:shown], final=i + 1 == steps)
        minute = int(at // 60)
        at += len(pcm) / 2 / RATE
        if int(at // 60) > minute:
            now = time.process_time()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident = pages * os.sysconf("SC_PAGESIZE") / 2**20
            yield {"minute": minute + 1, "cpu_share": (now - spent) / 60, "resident_mb": resident}
            spent = now


def main(
    bundle: Annotated[Path | None, typer.Option(help="[default: the built-in one]")] = None,
    manifest: Annotated[Path | None, typer.Option(help="16 kHz clips. [default: demo]")] = None,
    length: Annotated[int, typer.Option("--minutes", help="Length of the long session.")] = 60,
) -> None:
    """Measure what a session costs."""
    model = Model.load(find_bundle(bundle), device="cpu")
    clips = read_clips(manifest)
    revisions(model, clips, 1)
    pairs = [(revisions(model, clips, 1), revisions(model, clips, 20)) for _ in range(7)]
    ratio = float(np.median([many[0] / one[0] for one, many in pairs]))
    typer.echo(
        json.dumps(
            {
                "cost_of_20_revisions_against_1": round(ratio, 2),
                "cpu_ms_with_1": round(1000 * float(np.median([one[0] for one, _ in pairs])), 1),
                "samples_encoded": sorted({samples for pair in pairs for _, samples in pair}),
                "samples_received": 10 * RATE,
            }
        )
    )
    rows = list(minutes(model, clips, length))
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        typer.echo(json.dumps({k: round(v, 4) for k, v in row.items()}))
    early = float(np.median([r["cpu_share"] for r in rows[: max(1, length // 6)]]))
    late = float(np.median([r["cpu_share"] for r in rows[-max(1, length // 6) :]]))
    growth = rows[-1]["resident_mb"] - rows[min(1, len(rows) - 1)]["resident_mb"]
    typer.echo(
        json.dumps({"late_against_early": round(late / early, 3), "growth_mb": round(growth, 1)})
    )


if __name__ == "__main__":
    typer.run(main)
