"""The real sherpa-onnx library, on a model of two tones that is written here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soxr

from cnerta.streamer.errors import RecogniserError, RecogniserMissingError, TranscriptError
from cnerta.streamer.sources import make_transcript_source
from cnerta.streamer.sources.sherpa import find_model_files

from .collect import collect, finals
from .tone_recogniser import tones, write_tone_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tone_model(tmp_path_factory.mktemp("tones"))


async def test_utterances_grow_and_end_in_the_pauses(model: Path) -> None:
    source = make_transcript_source(f"sherpa-onnx:{model},kind=nemo-ctc")
    got = await collect(source, tones("一二一 二二"))
    assert finals(got) == ["一二一", "二二"]
    assert {revision.text for revision in got if revision.utterance == "u1"} >= {"一二", "一二一"}
    assert [revision.utterance for revision in got if revision.final] == ["u1", "u2"]
    first, second = (revision for revision in got if revision.final)
    # Said from 0.25 to 1.5 s and from 2.75 to 3.5 s.
    assert first.start_ms == 0
    assert first.end_ms is not None
    assert second.start_ms is not None
    assert second.end_ms is not None
    assert 1_300 <= first.end_ms <= 1_700
    assert 2_300 <= second.start_ms <= 2_750
    assert 3_200 <= second.end_ms <= 3_800


async def test_any_rate_is_resampled(model: Path) -> None:
    source = make_transcript_source(f"sherpa-onnx:{model},kind=nemo-ctc")
    samples = soxr.resample(tones("二一"), 16_000, 44_100).astype(np.float32)
    assert finals(await collect(source, samples, sample_rate=44_100)) == ["二一"]


async def test_without_speech_there_is_nothing(model: Path) -> None:
    source = make_transcript_source(f"sherpa-onnx:{model},kind=nemo-ctc")
    assert await collect(source, tones("  ")) == []
    assert await collect(source, tones("")[:0]) == []


async def test_an_utterance_is_cut_where_it_gets_too_long(model: Path) -> None:
    source = make_transcript_source(f"sherpa-onnx:{model},kind=nemo-ctc,longest=2")
    said = finals(await collect(source, tones("一二一二一二一二")))
    assert len(said) > 1
    assert "".join(said) == "一二一二一二一二"


@pytest.mark.parametrize(
    ("names", "kind", "chosen"),
    [
        (
            ("encoder-epoch-99.onnx", "encoder-epoch-99.int8.onnx", "decoder-epoch-99.onnx",
             "joiner-epoch-99.int8.onnx"),
            "transducer",
            {"encoder": "encoder-epoch-99.int8.onnx", "decoder": "decoder-epoch-99.onnx",
             "joiner": "joiner-epoch-99.int8.onnx"},
        ),
        (
            ("encoder.int8.onnx", "decoder.int8.onnx"),
            "paraformer",
            {"encoder": "encoder.int8.onnx", "decoder": "decoder.int8.onnx"},
        ),
        (
            ("ctc-epoch-20-avg-1-chunk-16-left-128.int8.onnx", "ctc-epoch-20.onnx"),
            "zipformer2-ctc",
            {"model": "ctc-epoch-20-avg-1-chunk-16-left-128.int8.onnx"},
        ),
    ],
)  # fmt: skip
def test_models_are_told_by_the_names_of_their_files(
    tmp_path: Path, names: tuple[str, ...], kind: str, chosen: dict[str, str]
) -> None:
    for name in (*names, "tokens.txt"):
        (tmp_path / name).touch()
    wanted = {"tokens": "tokens.txt", **chosen}
    found = {part: str(tmp_path / name) for part, name in wanted.items()}
    assert find_model_files(tmp_path) == (kind, found)


def test_half_a_model_is_none(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").touch()
    with pytest.raises(RecogniserMissingError, match=r"paraformer.* got encoder\.onnx"):
        make_transcript_source(f"sherpa-onnx:{tmp_path}")


def test_options_of_other_types(model: Path) -> None:
    with pytest.raises(TranscriptError, match="options of sherpa-onnx: Expected `int`"):
        make_transcript_source(f"sherpa-onnx:{model},threads=many")
    with pytest.raises(TranscriptError, match=r"expected options of sherpa-onnx \(.*'beams'"):
        make_transcript_source(f"sherpa-onnx:{model},beams=2")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    with pytest.raises(RecogniserMissingError) as caught:
        make_transcript_source("sherpa-onnx")
    assert "pip install 'cnerta-stream[asr]'" in str(caught.value)
    assert "--source lines" in str(caught.value)


class FakeHub:
    """Has one model in its cache or in its hub, or neither."""

    def __init__(self, folder: Path, *, cached: bool, online: bool) -> None:
        self.folder = folder
        self.cached = cached
        self.online = online
        self.fetched: list[str] = []

    def snapshot_download(
        self, name: str, *, allow_patterns: list[str], local_files_only: bool = False
    ) -> str:
        if local_files_only:
            if not self.cached:
                raise FileNotFoundError("not in the cache")
        elif not self.online:
            raise ConnectionError("Name or service not known.\nmore of it")
        else:
            self.cached = True
            self.fetched.extend(allow_patterns)
        return str(self.folder)


@pytest.mark.parametrize("cached", [True, False])
async def test_a_model_of_the_hub_is_fetched_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    (tmp_path / "model.int8.onnx").write_bytes((model / "model.onnx").read_bytes())
    (tmp_path / "tokens.txt").write_bytes((model / "tokens.txt").read_bytes())
    hub = FakeHub(tmp_path, cached=cached, online=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)  # type: ignore[arg-type]
    for _ in range(2):
        source = make_transcript_source("sherpa-onnx:somebody/tones,kind=nemo-ctc")
        assert finals(await collect(source, tones("一"))) == ["一"]
    assert hub.fetched == ([] if cached else ["tokens.txt", "*.int8.onnx"])


def test_without_internet_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(tmp_path, cached=False, online=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)  # type: ignore[arg-type]
    with pytest.raises(RecogniserMissingError) as caught:
        make_transcript_source("sherpa-onnx")
    said = str(caught.value)
    assert "got: Name or service not known. Without internet:" in said
    assert "--source sherpa-onnx:FOLDER" in said


def test_a_name_that_is_neither_folder_nor_model() -> None:
    with pytest.raises(RecogniserMissingError, match="got 'no-such-folder'"):
        make_transcript_source("sherpa-onnx:no-such-folder")


async def test_what_the_library_throws_is_told(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_transcript_source(f"sherpa-onnx:{model},kind=nemo-ctc")

    def fail(stream: object) -> bool:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(source._recogniser, "is_ready", fail)  # type: ignore[attr-defined]
    with pytest.raises(RecogniserError, match="expected text from sherpa-onnx, got: out of memory"):
        await collect(source, tones("一"))
