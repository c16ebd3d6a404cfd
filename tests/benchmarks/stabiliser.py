"""What the stabiliser's options trade: flicker against the delay until an entity is settled.

    python tests/benchmarks/stabiliser.py --manifest recordings/manifest.jsonl \
        --json stabiliser.json --plot docs/stabiliser.png

Recordings are replayed through the real session with the real model, in simulated time: audio at
the pace of speech, and a transcript that grows as the characters are spoken (by the alignment of
the whole recording), three revisions a second, each character 200 ms after its end, the final text
300 ms after the audio's end. Answers take no time; what the machine adds is in ``live.py``.

The transcript errs as streaming recognition does at its live edge. Of every hundred characters 12
come first as another character of the same pronunciation (any character where there is none) and 3
are missing at first; one to three characters later, drawn evenly, they are put right. The final
text is right. All drawn from the recording's name, so that all settings see the same.

What the tagger says does not depend on the stabiliser, so it runs once for each recording and every
setting gets the recorded answers. For each setting:

* ``tentative_flicker``, ``stable_flicker``: retractions and changes of label for each final entity,
  of entities that were tentative and that were stable just before; ``…_moves``: changes of text;
* ``settled_ms``: from the first revision that has all of a final entity's characters right to the
  moment it is stable in its final reading, or final; 50 % and 90 %;
* ``stable_before_final``: final entities that were stable in their final reading before the final;
* ``stable_survives``: entities that were called stable and are final in that reading;
* ``shown_before_final``: final entities shown in their final reading before the final.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from cnerta.models.runtime.boundaries import character_times, sound_levels
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.geometry import HOP_SAMPLES, SAMPLE_RATE
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.normalisation import normalise
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.outgoing.outbox import Outbox
from cnerta.streamer.session.session import Session
from cnerta.streamer.session.stabiliser import StabiliserOptions
from cnerta.streamer.session.work import (
    LANES,
    EncodedAudio,
    EncodeWork,
    Result,
    TaggedText,
    Work,
)
from cnerta.streamer.wire.messages import (
    CaptionUpdate,
    EntityRetract,
    EntityUpsert,
    SessionStart,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat, Entity
from cnerta.train.data.audio import read_audio

STEP_MS = 40
REVISION_MS = 333
ASR_DELAY_MS = 200
FINAL_DELAY_MS = 300
WRONG_SHARE, MISSING_SHARE = 0.12, 0.03
MOST_LATER = 3
NEVER_MS = 60_000

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording and what a recogniser says of it.

    Attributes:
        samples: 16 kHz.
        text: The right text.
        revisions: [sent at ms, text], the final one last.
        known_ms: For each character when a revision first has it and all before it right.
    """

    samples: Floats
    text: str
    revisions: tuple[tuple[float, str], ...]
    known_ms: tuple[float, ...]


def homophones(vocabulary: Vocabulary) -> dict[str, str]:
    """For each character the others that may be read like it."""
    by_unit: dict[int, list[str]] = defaultdict(list)
    for character, units in zip(vocabulary.characters, vocabulary.readings, strict=True):
        by_unit[units[0]].append(character)
    return {
        c: "".join(other for other in by_unit[units[0]] if other != c)
        for c, units in zip(vocabulary.characters, vocabulary.readings, strict=True)
    }


def clip_of(
    name: str, samples: Floats, text: str, model: Model, others: dict[str, str]
) -> Clip | None:
    """Say when each revision comes and what it is; None where the audio does not fit."""
    (tagged,) = model.tag([text], [model.encode_recording(samples)])
    found = tagged.alignment
    if found is None or found.score < model.bundle.audio_fit_bound:
        return None
    geometry = model.bundle.geometry
    padded = np.pad(samples, (0, -len(samples) % geometry.hop_samples))
    spoken = character_times(found, 0, sound_levels(padded), geometry)[:, 1] + ASR_DELAY_MS

    draw = random.Random(name)
    any_character = model.bundle.vocabulary.characters
    first: list[str] = []  # what each character is taken for at first
    right_at: list[int] = []  # how many characters must have been said until it is put right
    for i, character in enumerate(text):
        chance, later = draw.random(), draw.randint(1, MOST_LATER)
        if chance < WRONG_SHARE:
            first.append(draw.choice(others.get(character) or any_character))
        elif chance < WRONG_SHARE + MISSING_SHARE:
            first.append("")
        else:
            first.append(character)
        right_at.append(i + 1 if first[-1] == character else i + 1 + later)

    end_ms = 1000 * len(samples) / geometry.sample_rate + FINAL_DELAY_MS
    revisions: list[tuple[float, str]] = []
    known = [end_ms] * len(text)
    for at in np.arange(REVISION_MS, end_ms, REVISION_MS):
        said = int(np.searchsorted(spoken, at, side="right"))
        now = "".join(text[i] if said >= right_at[i] else first[i] for i in range(said))
        if now and (not revisions or now != revisions[-1][1]):
            revisions.append((float(at), now))
        for i in range(said):
            if said < right_at[i]:
                break
            known[i] = min(known[i], float(at))
    revisions.append((end_ms, text))
    return Clip(samples, text, tuple(revisions), tuple(known))


@dataclass(slots=True)
class Recorder:
    """An engine that remembers what the tagger said, and then says it again.

    Attributes:
        engine: Runs the model; None to repeat.
        said: What the tagger said, in order.
        width: Of a frame.
    """

    engine: Engine | None
    said: list[TaggedText]
    width: int

    def repeat(self) -> Recorder:
        return Recorder(None, list(self.said), self.width)

    def run(self, work: Work) -> Result:
        if self.engine is None and isinstance(work, EncodeWork):
            # Frames without content: nobody looks at them.
            frames = np.zeros((len(work.samples) // HOP_SAMPLES, self.width), np.float32)
            return EncodedAudio(frames, work.state)
        if self.engine is None:
            return self.said.pop(0)
        result = self.engine.run(work)
        assert not isinstance(result, Exception)
        if isinstance(result, TaggedText):
            self.said.append(result)
        return result


def replay(
    model: Model,
    clip: Clip,
    engine: Recorder,
    options: StabiliserOptions,
    hold_ms: int | None = None,
) -> Iterator[tuple[float, CaptionUpdate | EntityUpsert | EntityRetract | UtteranceFinal]]:
    """Stream a clip. Yields each event with its time in ms; with ``hold_ms`` captions, too."""
    outbox = Outbox(1 << 20)
    start = SessionStart(
        audio=AudioFormat(encoding="pcm_f32le", sample_rate=SAMPLE_RATE, channels=1),
        hold_ms=hold_ms,
    )
    session = Session(model.bundle, start, SessionLimits(), outbox)
    # The wire offers max_delay_ms only; the rest is what this program is about.
    session._options = replace(session._options, stabiliser=options)
    pending = list(enumerate(clip.revisions, 1))
    now = 0.0
    while pending:
        audio = clip.samples[round(16 * now) : round(16 * (now + STEP_MS))]
        now += STEP_MS
        if len(audio):
            session.add_audio(audio.astype("<f4").tobytes())
        while pending and pending[0][1][0] <= now:
            number, (_, text) = pending.pop(0)
            message = Transcript(utterance="u", revision=number, text=text, final=not pending)
            session.add_transcript(message, now / 1000)
        session.tick(now / 1000)
        while True:
            given = [w for lane in LANES if (w := session.next_work(lane, now / 1000)) is not None]
            if not given:
                break
            for work in given:
                session.work_done(work, engine.run(work), now / 1000)
        while (event := outbox.pop()) is not None:
            if isinstance(event, CaptionUpdate | EntityUpsert | EntityRetract | UtteranceFinal):
                yield now, event


@dataclass(slots=True)
class Seen:
    """What the clients of one setting saw."""

    final_entities: int = 0
    flicker: dict[str, int] = field(default_factory=lambda: {"tentative": 0, "stable": 0})
    moves: dict[str, int] = field(default_factory=lambda: {"tentative": 0, "stable": 0})
    settled_ms: list[float] = field(default_factory=list)
    stable_before_final: int = 0
    called_stable: int = 0
    stable_survives: int = 0
    shown_before_final: int = 0

    def add(
        self,
        clip: Clip,
        events: Iterator[
            tuple[float, CaptionUpdate | EntityUpsert | EntityRetract | UtteranceFinal]
        ],
    ) -> None:
        """Count one clip's events."""
        last: dict[str, Entity] = {}
        shown: set[tuple[str, str, int]] = set()
        stable: dict[str, tuple[str, str]] = {}  # the reading that was first called stable
        settled: dict[str, tuple[float, tuple[str, str]]] = {}
        for at, event in events:
            if isinstance(event, CaptionUpdate):
                continue  # Nothing is held back here.
            if isinstance(event, EntityRetract):
                self.flicker[last.pop(event.id).status] += 1
                settled.pop(event.id, None)
                continue
            if isinstance(event, EntityUpsert):
                self._add_upsert(at, event.entity, last, shown, stable, settled)
                continue
            self.final_entities += len(event.entities)
            reading = {e.id: (e.label, e.text) for e in event.entities}
            self.called_stable += len(stable)
            self.stable_survives += sum(reading.get(i) == r for i, r in stable.items())
            for entity in event.entities:
                since = max(clip.known_ms[entity.start : entity.end])
                until, as_what = settled.get(entity.id, (at, reading[entity.id]))
                is_settled = as_what == reading[entity.id] and until < at
                self.stable_before_final += is_settled
                self.settled_ms.append(max(0.0, (until if is_settled else at) - since))
                self.shown_before_final += (*reading[entity.id], entity.start) in shown

    def _add_upsert(
        self,
        at: float,
        entity: Entity,
        last: dict[str, Entity],
        shown: set[tuple[str, str, int]],
        stable: dict[str, tuple[str, str]],
        settled: dict[str, tuple[float, tuple[str, str]]],
    ) -> None:
        before, reading = last.get(entity.id), (entity.label, entity.text)
        if before is not None:
            self.flicker[before.status] += before.label != entity.label
            self.moves[before.status] += before.text != entity.text
        last[entity.id] = entity
        if entity.status != "final":
            shown.add((*reading, entity.start))
        if entity.status == "stable":
            stable.setdefault(entity.id, reading)
            if settled.get(entity.id, (0.0, None))[1] != reading:
                settled[entity.id] = (at, reading)

    def row(self) -> dict[str, Any]:
        each = max(1, self.final_entities)
        half, most = np.percentile(self.settled_ms or [0.0], [50, 90])
        return {
            "final_entities": self.final_entities,
            "tentative_flicker": round(self.flicker["tentative"] / each, 4),
            "stable_flicker": round(self.flicker["stable"] / each, 4),
            "tentative_moves": round(self.moves["tentative"] / each, 4),
            "stable_moves": round(self.moves["stable"] / each, 4),
            "settled_ms_p50": round(float(half)),
            "settled_ms_p90": round(float(most)),
            "stable_before_final": round(self.stable_before_final / each, 3),
            "stable_survives": round(self.stable_survives / max(1, self.called_stable), 3),
            "shown_before_final": round(self.shown_before_final / each, 3),
        }


def grid() -> Iterator[tuple[str, StabiliserOptions]]:
    """Settings by the curve they belong to: along it one option varies, the first by edges."""
    default = StabiliserOptions()
    yield "default", default
    for edge in (0, 1, 2, 3, 4):
        for agreeing in (1, 2, 3, 4):
            yield (
                f"{agreeing} agreeing",
                replace(
                    default,
                    agreeing_revisions=agreeing,
                    edge_characters=edge,
                    max_delay_ms=NEVER_MS,
                ),
            )
    for delay in (200, 400, 700, 1000, 1500, 2000, 3000):
        yield "max_delay_ms", replace(default, max_delay_ms=delay)
        yield (
            "max_delay_ms alone",
            replace(default, max_delay_ms=delay, agreeing_revisions=NEVER_MS),
        )
    for confidence in (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        yield "min_confidence", replace(default, min_confidence=confidence, max_delay_ms=NEVER_MS)


def read_clips(manifests: Sequence[Path], limit: int, model: Model) -> Iterator[Clip]:
    """Clips with entities, from each manifest as many."""
    others = homophones(model.bundle.vocabulary)
    for manifest in manifests:
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        rows = [r for r in rows if r.get("split", "dev20") == "dev20"]
        random.Random(0).shuffle(rows)
        found = 0
        for row in rows:
            text = normalise(row["text"]).text
            if found == limit or not text or len(text) > model.bundle.max_characters:
                continue
            samples = read_audio(manifest.parent / row["audio"])
            (tagged,) = model.tag([text], [np.zeros((0, model.bundle.geometry.width), np.float32)])
            clip = clip_of(row["audio"], samples, text, model, others) if tagged.spans else None
            if clip is not None:
                found += 1
                yield clip


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Flicker of stable entities against the delay until they are settled, a curve a setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    for axes, key, title in (
        (panels[0], "settled_ms_p50", "half of the final entities"),
        (panels[1], "settled_ms_p90", "nine in ten"),
    ):
        curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in rows:
            changes = row["stable_flicker"] + row["stable_moves"]
            curves[row["curve"]].append((row[key], changes))
        for name, points in curves.items():
            if name != "default":
                x, y = zip(*points, strict=True)
                axes.plot(x, y, marker="o", markersize=3, linewidth=1, label=name)
        ((x0, y0),) = curves["default"]
        axes.plot([x0], [y0], "k*", markersize=13, label="default", linestyle="none")
        axes.set_title(title)
        axes.set_xlabel("from known to settled within, ms")
        axes.set_yscale("symlog", linthresh=0.02)
        axes.set_ylim(bottom=0)
        axes.set_yticks(
            [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
            labels=map(str, (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("changes of stable entities\nfor each final entity")
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main(
    manifest: Annotated[list[Path], typer.Option(help="Recordings; may be given again.")],
    bundle: Annotated[Path | None, typer.Option(help="[default: the built-in one]")] = None,
    limit: Annotated[int, typer.Option(help="Recordings of each manifest.")] = 500,
    half: Annotated[int, typer.Option(help="0 to choose options by, 1 to report.")] = 1,
    output: Annotated[Path | None, typer.Option("--json", help="Where to write all rows.")] = None,
    figure: Annotated[Path | None, typer.Option("--plot", help="Where to draw them.")] = None,
) -> None:
    """Measure every setting."""
    model = Model.load(find_bundle(bundle), device="cpu")
    clips = [c for i, c in enumerate(read_clips(manifest, limit, model)) if i % 2 == half]
    recorded = []
    for clip in clips:
        recorder = Recorder(Engine(model), [], model.bundle.geometry.width)
        list(replay(model, clip, recorder, StabiliserOptions()))
        recorded.append(recorder)
    rows = []
    for curve, options in grid():
        seen = Seen()
        for clip, recorder in zip(clips, recorded, strict=True):
            seen.add(clip, replay(model, clip, recorder.repeat(), options))
        rows.append({"curve": curve, "recordings": len(clips)} | asdict(options) | seen.row())
        typer.echo(json.dumps(rows[-1]))
    if output:
        output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if figure:
        plot(rows, figure)


if __name__ == "__main__":
    typer.run(main)
