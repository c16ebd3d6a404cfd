"""With the real library: the manifests it writes are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")
lhotse = pytest.importorskip("lhotse")

from lhotse import (  # noqa: E402
    CutSet,
    MonoCut,
    MultiCut,
    Recording,
    SupervisionSegment,
)
from lhotse.supervision import AlignmentItem  # noqa: E402

from cnerta.models.errors import DataError  # noqa: E402
from cnerta.models.runtime.labels import Span  # noqa: E402
from cnerta.train.data.audio import AudioCache, read_audio  # noqa: E402
from cnerta.train.data.examples import read_examples, read_source  # noqa: E402
from cnerta.train.data.held import HeldRecording  # noqa: E402
from cnerta.train.data.lhotse_cuts import read_cuts  # noqa: E402
from cnerta.train.data.recordings import recording_seconds  # noqa: E402
from cnerta.train.data.segments import segment_path  # noqa: E402
from cnerta.train.recipe import Source  # noqa: E402

RATE = 8_000


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """Four seconds whose samples say where they are."""
    ramp = np.linspace(-0.5, 0.5, 4 * RATE, dtype=np.float32)
    soundfile.write(tmp_path / "call.wav", ramp, RATE, subtype="FLOAT")
    return Recording.from_file(tmp_path / "call.wav")


def supervision(name: str, start: float, seconds: float, text: str, **more: Any) -> Any:
    return SupervisionSegment(
        id=name, recording_id="call", start=start, duration=seconds, text=text, **more
    )


def cut(recording: Recording, *supervisions: Any, start: float = 0.0, seconds: float = 4.0) -> Any:
    return MonoCut(
        id="c", start=start, duration=seconds, channel=0, recording=recording,
        supervisions=list(supervisions),
    )  # fmt: skip


def write(path: Path, *cuts: Any) -> Path:
    CutSet.from_cuts(cuts).to_file(path)
    return path


def test_supervisions_are_utterances(recording: Recording, tmp_path: Path) -> None:
    entities = [[0, 2, "王芳", "PER"]]
    both = cut(
        recording,
        supervision("u1", 0.5, 0.75, "王芳在", speaker="anna", custom={"entities": entities}),
        supervision("u2", 2.0, 1.0, "他在北京"),
        start=1.0, seconds=3.0,
    )  # fmt: skip
    manifest = write(tmp_path / "cuts.jsonl.gz", both)
    first, second = read_examples(manifest)
    assert (first.text, first.spans, first.speaker) == ("王芳在", (Span(0, 2, "PER"),), "anna")
    assert (second.text, second.spans, second.name) == ("他在北京", None, "u2")
    # A supervision's time counts from the cut's start, the segment's from the recording's.
    assert first.audio == segment_path(tmp_path / "call.wav", 1.5, 2.25)
    assert second.audio == segment_path(tmp_path / "call.wav", 3.0, 4.0)
    assert first.audio is not None
    assert recording_seconds(first.audio) == pytest.approx(0.75)
    assert read_audio(first.audio)[3_000:9_000].mean() == pytest.approx(-0.5 + 1.875 / 4, abs=2e-3)
    source = Source(format="lhotse", path="*.jsonl.gz", speech=False)
    assert [e.audio for e in read_source(source, tmp_path)] == [None, None]


def test_a_whole_recording_and_times_of_its_characters(
    recording: Recording, tmp_path: Path
) -> None:
    items = [AlignmentItem(c, 0.5 + i, 0.5, 1.0) for i, c in enumerate("北京")]
    said = supervision("u", 0.0, 4.0, "北京", alignment={"char": items})
    (example,) = read_cuts(write(tmp_path / "cuts.jsonl", cut(recording, said)))
    assert example.audio == tmp_path / "call.wav"
    assert example.times_ms == ((500.0, 1000.0), (1500.0, 2000.0))
    other = supervision("u", 0.0, 4.0, "北京市", alignment={"char": items})
    (example,) = read_cuts(write(tmp_path / "cuts.jsonl", cut(recording, other)))
    assert example.times_ms is None, "not those of this text"


def test_what_only_lhotse_can_read(recording: Recording, tmp_path: Path) -> None:
    loud, still = np.full(RATE, 0.25, np.float32), np.zeros(RATE, np.float32)
    soundfile.write(tmp_path / "two.wav", np.stack([still, loud], 1), RATE, subtype="FLOAT")
    two = Recording.from_file(tmp_path / "two.wav")
    channel = MonoCut(
        id="c", start=0.0, duration=1.0, channel=1, recording=two,
        supervisions=[supervision("second", 0.25, 0.5, "好", channel=1)],
    )  # fmt: skip
    faster = cut(recording, supervision("fast", 1.0, 2.0, "很好")).perturb_speed(2.0)
    found = list(read_cuts(write(tmp_path / "cuts.jsonl.gz", channel, faster)))
    assert all(isinstance(e.audio, HeldRecording) for e in found)
    cache = AudioCache()
    lengths = [(e.text, len(cache(e.audio)), cache.seconds(e.audio)) for e in found if e.audio]
    assert lengths == [("好", 8_000, 0.5), ("很好", 16_000, 1.0)]
    first, second = (cache(e.audio) for e in found if e.audio)
    assert first[2_000:6_000] == pytest.approx(0.25, abs=1e-3), "one channel, not their mean"
    assert second[8_000] == pytest.approx(0.0, abs=0.01), "the middle of the recording"


def test_manifests_are_read_line_by_line(recording: Recording, tmp_path: Path) -> None:
    said = supervision("u", 0.0, 1.0, "好")
    manifest = write(tmp_path / "cuts.jsonl", cut(recording, said))
    with manifest.open("a") as lines:
        lines.write("no JSON\n")
    read = read_cuts(manifest)
    assert next(read).text == "好", "before the rest is looked at"
    with pytest.raises(DataError, match="expected a manifest of Lhotse's cuts"):
        next(read)


def test_what_is_wrong_is_named(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {
        r"u: expected a text, got None": supervision("u", 0, 1, None),  # type: ignore[arg-type]
        r"u: expected an entity inside 0\.\.1": supervision(
            "u", 0, 1, "好", custom={"entities": [[0, 3, "好", "LOC"]]}
        ),
    }
    for message, said in wrong.items():
        manifest = write(tmp_path / "cuts.jsonl", cut(recording, said))
        with pytest.raises(DataError, match=message):
            list(read_cuts(manifest))
    silent = MonoCut("c", 0.0, 1.0, 0, supervisions=[supervision("u", 0, 1, "好")])
    with pytest.raises(DataError, match="expected a cut with a recording, got none"):
        list(read_cuts(write(tmp_path / "cuts.jsonl", silent)))
    with pytest.raises(DataError, match="expected cuts with supervisions"):
        list(read_cuts(write(tmp_path / "cuts.jsonl", cut(recording))))
    with pytest.raises(DataError, match=r"file, a folder or a pattern of files, got .*nothing"):
        read_source(Source(format="lhotse", path="nothing"), tmp_path)
    with pytest.raises(DataError, match="expected no where"):
        read_source(Source(format="lhotse", path="cuts.jsonl", where={"a": ["b"]}), tmp_path)
    monkeypatch.setitem(sys.modules, "lhotse", None)
    with pytest.raises(DataError, match=r"pip install 'cnerta-stream\[corpora\]'"):
        list(read_cuts(tmp_path / "cuts.jsonl"))


def test_several_channels_go_through_lhotse(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "two.wav", np.full((RATE, 2), 0.5, np.float32), RATE)
    both = MultiCut(
        id="c", start=0.0, duration=1.0, channel=[0, 1],
        recording=Recording.from_file(tmp_path / "two.wav"),
        supervisions=[supervision("u", 0.0, 1.0, "好", channel=[0, 1])],
    )  # fmt: skip
    (example,) = read_cuts(write(tmp_path / "cuts.jsonl", both))
    assert example.audio is not None
    assert read_audio(example.audio)[4_000:12_000] == pytest.approx(0.5, abs=1e-3)
