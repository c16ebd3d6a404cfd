"""How well text that is held back keeps names from being shown, and what that costs in time.

    python tests/benchmarks/hold_back.py --manifest recordings/manifest.jsonl

Recordings and transcripts as in ``stabiliser.py``: simulated time, three revisions a second, errors
at the live edge that are put right later. A viewer sees what ``caption.update`` releases, with the
entities in it hidden. For each ``hold_ms`` (the last one: never by age alone), and for each number
of characters that have to follow a character outside of names:

* ``whole``: final entities whose whole text could be read before the final answer;
* ``part``: those of which two neighbouring characters could be read at their place;
* ``late_ms``: from the first revision that has a character right to the moment it is shown, or
  hidden, in its place; 50 % and 90 %. With nothing held back it is 0 of all that is answered.

There is no gold: a name is what the final answer finds. What is in no revision before the final one
is shown by the final answer. ``--choose`` tries other numbers of characters, on every second
recording; the others are reported. The number that ships was set beforehand, not chosen so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from stabiliser import Clip, Recorder, read_clips, replay

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.session.outgoing import held_text
from cnerta.streamer.session.stabiliser import StabiliserOptions
from cnerta.streamer.wire.messages import CaptionUpdate, UtteranceFinal

HOLDS = (0, 500, 1_000, 2_000, 60_000)
EDGES = (0, 2, 4, 6)
HIDDEN = "\0"


@dataclass
class Seen:
    """What viewers of one setting could read."""

    entities: int = 0
    whole: int = 0
    part: int = 0
    late_ms: list[float] = field(default_factory=list)

    def add(self, model: Model, clip: Clip, engine: Recorder, hold_ms: int) -> None:
        """Stream a clip."""
        shown: list[tuple[float, str, str]] = []
        for at, event in replay(model, clip, engine, StabiliserOptions(), hold_ms):
            if isinstance(event, CaptionUpdate):
                readable = list(event.text)
                for entity in event.entities:
                    readable[entity.start : entity.end] = HIDDEN * (entity.end - entity.start)
                shown.append((at, event.text, "".join(readable)))
            elif isinstance(event, UtteranceFinal):
                self._count(clip, event, shown, at)

    def _count(
        self, clip: Clip, final: UtteranceFinal, shown: Sequence[tuple[float, str, str]], at: float
    ) -> None:
        for entity in final.entities:
            self.entities += 1
            self.whole += any(entity.text in readable for _, _, readable in shown)
            self.part += any(
                readable[i : i + 2] == final.text[i : i + 2]
                for _, _, readable in shown
                for i in range(entity.start, entity.end - 1)
            )
        first = [at] * len(final.text)
        for when, text, _ in reversed(shown):
            for i in range(min(len(text), len(first))):
                if text[i] == final.text[i]:
                    first[i] = when
        self.late_ms += [max(0.0, f - k) for f, k in zip(first, clip.known_ms, strict=True)]

    def row(self) -> str:
        each = max(1, self.entities)
        half, most = np.percentile(self.late_ms or [0.0], [50, 90])
        return (
            f"{self.entities} entities, whole {100 * self.whole / each:.1f} %, "
            f"part {100 * self.part / each:.1f} %, late {half:.0f} / {most:.0f} ms"
        )


def main(
    manifest: Annotated[list[Path], typer.Option(help="Recordings as JSON lines.")],
    limit: Annotated[int, typer.Option(help="Recordings of each manifest.")] = 200,
    choose: Annotated[bool, typer.Option(help="The other half of the recordings.")] = False,
    bundle: Annotated[Path, typer.Option(help="A folder, or fast or accurate.")] = Path("fast"),
) -> None:
    """Print a line for each setting."""
    model = Model.load(find_bundle(bundle), device="cpu")
    clips = list(read_clips(manifest, limit, model))[0 if choose else 1 :: 2]
    engines: list[Recorder] = []
    for clip in clips:
        engine = Recorder(Engine(model), [], model.bundle.geometry.width)
        for _ in replay(model, clip, engine, StabiliserOptions(), 0):
            pass
        engines.append(engine)
    print(f"{len(clips)} recordings, {model.bundle.name}")
    default = held_text.EDGE_CHARACTERS
    for edge in EDGES if choose else (default,):
        held_text.EDGE_CHARACTERS = edge  # type: ignore[misc]
        for hold_ms in HOLDS:
            seen = Seen()
            for clip, engine in zip(clips, engines, strict=True):
                seen.add(model, clip, engine.repeat(), hold_ms)
            print(f"following {edge}, hold_ms {hold_ms}: {seen.row()}")


if __name__ == "__main__":
    typer.run(main)
