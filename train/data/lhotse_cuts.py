"""Cuts of Lhotse: a supervision an utterance, read line by line from a manifest.

Entities are in a supervision's ``custom["entities"]``, as a manifest of ours has them:
``[[start, end, text, type], ...]``. Its alignment ``char``, one item a character, gives times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cnerta.models.errors import DataError
from cnerta.train.data.example import Example
from cnerta.train.data.held import HeldRecording
from cnerta.train.data.rows import example_of_row
from cnerta.train.data.segments import segment_path

__all__ = ["cut_manifests", "read_cuts"]

SUFFIXES: Final = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".yaml")
_NEAR: Final = 0.001  # s


@dataclass(frozen=True, slots=True, eq=False)
class CutRecording(HeldRecording):
    """A recording that only Lhotse can read: one channel of several, mixed, changed, in an archive.

    Attributes:
        cut: Of the supervision.
        label: What it is called.
    """

    cut: Any = field(repr=False)
    label: str

    @property
    def name(self) -> str:
        return self.label

    def read(self) -> tuple[Any, int]:
        try:
            samples = self.cut.load_audio()
        except Exception as error:
            # Lhotse reads through any of several libraries; their errors have no common root.
            raise DataError(f"expected the recording of cut {self.label}, got: {error}") from error
        if samples is None:
            raise DataError(f"expected a recording in cut {self.label}, got none")
        return samples.T, int(self.cut.sampling_rate)

    def seconds(self) -> float:
        return float(self.cut.duration)


def cut_manifests(path: Path) -> list[Path]:
    """The manifests of a path: a file, those of a folder, or those that a pattern names.

    Raises:
        DataError: There are none.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [f for f in path.iterdir() if f.name.endswith(SUFFIXES)]
    else:
        found = list(path.parent.glob(path.name)) if path.parent.is_dir() else []
    if not found:
        raise DataError(
            f"expected Lhotse's cuts, a file, a folder or a pattern of files, got {path}"
        )
    return sorted(found)


def read_cuts(manifest: Path, *, speech: bool = True) -> Iterator[Example]:
    """The supervisions of a manifest's cuts; JSON lines are read one by one.

    Args:
        manifest: The file.
        speech: With recordings.

    Raises:
        DataError: Lhotse is not installed, the file is none of its, or a cut has no recording, no
            text, or entities that do not fit its text.
    """
    try:
        from lhotse import CutSet
    except ImportError as error:
        raise DataError(
            f"expected the package lhotse to read {manifest}, got none: "
            "pip install 'cnerta-stream[corpora]'"
        ) from error
    found = False
    for cut in _each(manifest, CutSet):
        for supervision in cut.supervisions:
            found = True
            label = f"{manifest.name}, supervision {supervision.id}"
            yield _example(cut, supervision, label, manifest.parent, speech=speech)
    if not found:
        raise DataError(f"expected cuts with supervisions in {manifest}, got none")


def _each(manifest: Path, cut_set: Any) -> Iterator[Any]:
    try:
        yield from cut_set.from_file(manifest)
    except Exception as error:
        # A damaged manifest is any of many errors there: of JSON, of fields, of assertions.
        raise DataError(
            f"expected a manifest of Lhotse's cuts, got {manifest}: {error!r}"
        ) from error


def _example(cut: Any, supervision: Any, label: str, folder: Path, *, speech: bool) -> Example:
    custom = supervision.custom or {}
    row = {
        "text": supervision.text,
        "entities": custom.get("entities"),
        "speaker": supervision.speaker or "",
    }
    try:
        example = example_of_row(row)
    except (DataError, TypeError, ValueError) as error:
        raise DataError(f"{label}: {error}") from error
    return Example(
        text=example.text,
        spans=example.spans,
        audio=_audio(cut, supervision, label, folder) if speech else None,
        times_ms=_times(supervision, example.text),
        name=str(supervision.id),
        speaker=example.speaker,
        duplicates=example.duplicates,
    )


def _audio(cut: Any, supervision: Any, label: str, folder: Path) -> Path | HeldRecording:
    if not getattr(cut, "has_recording", False):
        raise DataError(
            f"{label}: expected a cut with a recording, got none: features are no audio"
        )
    # A mixed cut has none of its own.
    recording: Any = getattr(cut, "recording", None)
    is_plain = (
        recording is not None
        and len(recording.sources) == 1
        and recording.sources[0].type == "file"
        and recording.num_channels == 1
        and not recording.transforms
    )
    if is_plain:
        file = Path(recording.sources[0].source)
        file = folder / file if (folder / file).is_file() else file
        start, end = cut.start + supervision.start, cut.start + supervision.end
        if start < _NEAR and recording.duration - end < _NEAR:
            return file
        return segment_path(file, max(start, 0.0), min(end, recording.duration))
    part = cut.truncate(
        offset=max(supervision.start, 0.0),
        duration=min(supervision.end, cut.duration) - max(supervision.start, 0.0),
        preserve_id=True,
    )
    return CutRecording(part, label)


def _times(supervision: Any, text: str) -> tuple[tuple[float, float], ...] | None:
    """Start and end of each character in ms; None where there is no alignment of them."""
    items = (supervision.alignment or {}).get("char") or ()
    if "".join(item.symbol for item in items) != text or len(items) != len(text):
        return None
    begin = supervision.start
    return tuple((1000 * (i.start - begin), 1000 * (i.end - begin)) for i in items)
