"""Training from streams: the same steps on any number of processes, and after a cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

from cnerta.models.errors import ConfigError, DataError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.train.batches.lanes import epoch_pieces, lane_batches, lane_examples  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.example import Example  # noqa: E402
from cnerta.train.data.examples import read_examples  # noqa: E402
from cnerta.train.data.shards import write_shards  # noqa: E402
from cnerta.train.data.streams import Piece, StreamSize, memory_pieces  # noqa: E402
from cnerta.train.loop.stream_schedule import about_steps, check_lanes  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import Recipe, Stage, load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402

SETTINGS = [
    "augmentation.speeds=[0.9,1.0,1.1]",
    "augmentation.time_masks=0",
    "augmentation.frequency_masks=0",
    'data.stream={format="shards",path="shards",stream=true}',
    'data.written={format="manifest",path="written.jsonl"}',
    'stages.0.train=["stream"]',
    'stages.1.train=["stream","written"]',
    "stages.0.epochs=2",
    "stages.1.epochs=2",
    *(f"stages.{n}.{s}" for n in (0, 1) for s in ("batch_size=2", "accumulate=2", "shuffle=5")),
    "stages.1.drop_audio=0.3",
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The tones as five shards of 3 or 4, and a few sentences without a recording."""
    write_tones(tmp_path)
    write_shards(read_examples(tmp_path / "tones.jsonl"), tmp_path / "shards", per_shard=3)
    rows = [{"text": "南市长南市"[: n + 1], "entities": []} for n in range(5)]
    (tmp_path / "written.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def recipe_of(data: Path, *more: str) -> Recipe:
    return load_recipe(str(data / "recipe.toml"), [*SETTINGS, *more])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).model.state_dict()


def test_two_processes_divide_the_shards_and_train_as_one_does(data: Path, tmp_path: Path) -> None:
    one = Trainer(recipe_of(data), data, tmp_path / "one", cpu=True).run()
    changes = [f"--set={s}" for s in SETTINGS]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "cnerta.train", str(data / "recipe.toml"), "--data-root", str(data),
        "--out", str(tmp_path / "two"), "--cpu", "--threads=1", "--workers=2", *changes,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (two,) = (tmp_path / "two").glob("best-1-*")
    start = weights(tmp_path / "one" / "best-0-acoustic")["emissions.weight"]
    ours, theirs = weights(one), weights(two)
    for name, value in ours.items():
        away = (theirs[name] - value).abs()
        assert away.max() < 5e-4, name
        assert away.mean() < 2e-6, name
    assert (ours["emissions.weight"] - start).abs().max() > 0.005


def test_a_run_that_is_cut_off_takes_the_same_steps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer(recipe_of(data), data, tmp_path / "whole", cpu=True).run()

    class CutOffError(Exception):
        pass

    recipe, out = recipe_of(data), tmp_path / "cut"
    step = torch.optim.Adam.step
    for after in (2, 9):  # in the middle of an epoch
        taken = 0

        def counting(self: torch.optim.Adam, closure: None = None, *, most: int = after) -> None:
            nonlocal taken
            taken += 1
            if taken > most:
                raise CutOffError
            step(self, closure)

        with monkeypatch.context() as patched:
            patched.setattr(torch.optim.Adam, "step", counting)
            with pytest.raises(CutOffError):
                Trainer(recipe, data, out, cpu=True, save_minutes=0).run()
    resumed = Trainer(recipe, data, out, cpu=True, save_minutes=0).run()
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name


def test_a_stream_teaches_what_is_in_it(data: Path, tmp_path: Path) -> None:
    best = Trainer(
        recipe_of(data, "stages.0.epochs=15", "stages.1.epochs=15"), data, tmp_path / "run",
        cpu=True, workers=2,
    ).run()  # fmt: skip
    scores = load_checkpoint(best).scores
    assert scores["tones.speech.nested.f1"] > 90, scores


def test_a_new_model_has_the_characters_and_tags_of_all_shards(data: Path, tmp_path: Path) -> None:
    held = recipe_of(
        data, 'data.stream={format="shards",path="shards"}', "stages.0.epochs=0",
        "stages.1.epochs=0",
    )  # fmt: skip
    streamed = Trainer(recipe_of(data), data, tmp_path / "a", cpu=True).model
    whole = Trainer(held, data, tmp_path / "b", cpu=True).model
    assert streamed.vocabulary == whole.vocabulary
    assert streamed.scheme == whole.scheme
    mean, other = (m.acoustic.filter_bank.mean for m in (streamed, whole))  # type: ignore[union-attr]
    assert torch.allclose(mean, other, atol=1e-4)


def test_what_streams_cannot_do_is_refused(data: Path, tmp_path: Path) -> None:
    for change, message in (
        ('stages.1.dev=["stream"]', "expected development sources that are not streamed"),
        ("stages.1.exchange_names=0.5", "expected no exchange_names"),
        ('data.stream.exclude_texts_of=["stream2"]', "not streamed, got 'stream2'"),
    ):
        settings = ['data.stream2={format="shards",path="shards",stream=true}', change]
        with pytest.raises(ConfigError, match=message):
            Trainer(recipe_of(data, *settings), data, tmp_path / change[:9], cpu=True).run()
    for settings, message in (
        ('{format="manifest",path="x",stream=true}', "lhotse, huggingface or shards with stream"),
        ('{format="shards",path="x",stream=true,join=2}', "neither join nor limit"),
        ('{format="shards",path="x",split="a"}', "expected huggingface with split"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe_of(data, f"data.other={settings}")
    with pytest.raises(ConfigError, match="accumulate to be a multiple of the 4 processes"):
        check_lanes(recipe_of(data).stages[0], 4)
    rows = [Example("南", None)]
    write_shards(rows, data / "silent", per_shard=3)
    with pytest.raises(DataError, match=r"'acoustic': expected recordings in every source"):
        Trainer(
            recipe_of(data, 'data.stream.path="silent"'), data, tmp_path / "silent-run", cpu=True
        ).run()


def numbered(count: int, each: int) -> list[Piece]:
    """Pieces whose examples say where they are from."""
    return [
        Piece(str(p), lambda _, p=p: (Example(f"{p}/{i}", None) for i in range(each)))  # type: ignore[misc]
        for p in range(count)
    ]


@pytest.mark.parametrize(("count", "lanes"), [(7, 1), (7, 3), (2, 4)])
def test_lanes_have_everything_once(count: int, lanes: int) -> None:
    pieces = numbered(count, 10)
    found = []
    for lane in range(lanes):
        generator = np.random.default_rng(lane)
        own = [e.text for e in lane_examples(pieces, lane, lanes, generator)]
        if count >= lanes:
            assert {t.split("/")[0] for t in own} == {str(p) for p in range(lane, count, lanes)}
        found += own
    assert Counter(found) == Counter(f"{p}/{i}" for p in range(count) for i in range(10))


def test_examples_are_mixed_within_and_across_pieces() -> None:
    stage = Stage(name="s", task="entities", train=[], dev=[], epochs=1, batch_size=4, shuffle=40)
    generator = np.random.default_rng(0)
    examples = lane_examples(numbered(8, 10), 0, 1, generator)
    batches = list(lane_batches(examples, stage, AudioCache(), generator))
    order = [c[0].text for b in batches for c in b]
    assert len(order) == len(set(order)) == 80
    assert max(map(len, batches)) == 4
    assert np.mean([len({c[0].text.split("/")[0] for c in b}) for b in batches]) > 2


def test_an_epoch_of_some_shards_goes_on_where_the_last_ended() -> None:
    read = [epoch_pieces(5, epoch, 2, (0, 1)) for epoch in range(5)]
    flat = [n for numbers in read for n in numbers]
    assert sorted(flat[:5]) == sorted(flat[5:]) == [0, 1, 2, 3, 4], "each pass has all of them"
    assert flat[:5] != flat[5:]
    assert sorted(epoch_pieces(5, 3, 0, (0, 1))) == [0, 1, 2, 3, 4]
    assert epoch_pieces(5, 3, 0, (0, 1)) != epoch_pieces(5, 4, 0, (0, 1))


def test_about_how_many_steps() -> None:
    stage = Stage(name="s", task="entities", train=[], dev=[], epochs=1, accumulate=2)
    assert about_steps(stage, StreamSize(1_600, 1_600, 3_600.0)) == 50
    assert about_steps(stage, StreamSize(1_600, 800, 36_000.0)) == 175, "cut by seconds, and texts"
    assert about_steps(stage, StreamSize(1, 0, 0.0)) == 1


LIMITED = """
import gc, resource, sys, time
from pathlib import Path
# The first step of an optimiser imports it; it is no data.
import torch._dynamo
from cnerta.train.loop.trainer import Trainer
from cnerta.train.recipe import load_recipe

folder, settings = Path(sys.argv[1]), sys.argv[2:]
recipe = load_recipe(str(folder / "recipe.toml"), settings)
trainer = Trainer(recipe, folder, folder / "run", cpu=True)

def used():
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))

# What is given back only after the limit is set would be room beyond it.
allowed = min(used() for _ in range(20) if time.sleep(0.1) is None) + (160 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
size = sum(f.stat().st_size for f in (folder / "shards").glob("*.tar"))
assert size > 240 << 20, size
try:
    held = bytearray(size)
except MemoryError:
    print("does not fit")
print(f"{allowed >> 20} MB may be used, {used() >> 20} are", file=sys.stderr)
trainer.run()
print("trained")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_more_is_trained_on_than_fits_in_memory(tmp_path: Path) -> None:
    write_tones(tmp_path)
    generator = np.random.default_rng(0)
    # Much to read and little to compute: 0.6 s at a rate of studios, eight channels.
    noise = (0.05 * generator.standard_normal((57_600, 8))).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", noise, 96_000, subtype="FLOAT")
    row = Example("南市长", (), tmp_path / "long.wav")
    write_shards((row for _ in range(160)), tmp_path / "shards", per_shard=20)
    settings = [s for s in SETTINGS if "written" not in s] + [
        'stages.1.train=["stream"]', "stages.0.epochs=1", "stages.1.epochs=1",
        "stages.0.batch_size=8", "stages.1.batch_size=8", "stages.0.shuffle=16",
        "stages.1.shuffle=16", "stages.0.dev=[]", "stages.1.dev=[]", "augmentation.speeds=[1.0]",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), *settings],
        # Else what the allocator keeps of memory that was given back is room beyond the limit.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.split("\n")[:2] == ["does not fit", "trained"], done.stderr[-3_000:]


def test_pieces_of_what_is_in_memory_have_no_audio_unless_asked(tmp_path: Path) -> None:
    (piece,) = memory_pieces("x", [Example("好", None, tmp_path / "a.wav")])
    assert [e.audio for e in piece.read(True)] == [tmp_path / "a.wav"]
    assert [e.audio for e in piece.read(False)] == [None]
