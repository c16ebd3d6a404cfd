"""Every recipe of the package trains, exports and answers: at tiny sizes, on made-up data.

An export takes ten seconds, and the tests of text encoders and of fusions export each of these, so
only some compositions are exported here; with CNERTA_ALL=1 in the environment all are.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402

from cnerta.export import write  # noqa: E402
from cnerta.export.graphs import AcousticGraph, UtteranceGraph, write_graph  # noqa: E402
from cnerta.models.networks.acoustic_encoder import AcousticEncoder  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.runtime.decoding import CrfDecoder  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402
from cnerta.models.text.lexicon import pad_matches  # noqa: E402
from cnerta.streamer.audio.source import AudioFile  # noqa: E402
from cnerta.streamer.client.local import LocalConnection  # noqa: E402
from cnerta.streamer.client.stream import stream  # noqa: E402
from cnerta.streamer.sources import TimedLine, TimedTranscript  # noqa: E402
from cnerta.streamer.wire.messages import ServerMessage, UtteranceFinal  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import Recipe, Source, load_recipe, recipe_names  # noqa: E402

from .models.networks import acoustic_checkpoint, zen_checkpoint  # noqa: E402

TEXTS = ["南京市长江大桥", "江大桥市长", "长江", "南京市长说"]
ENTITIES = [
    [[0, 3, "南京市", "LOC"], [0, 2, "南京", "LOC"], [3, 7, "长江大桥", "LOC"]],
    [[0, 3, "江大桥", "PER"]],
    [[0, 2, "长江", "LOC"]],
    [[0, 2, "南京", "LOC"]],
]
READINGS = {
    "南": "nan2", "京": "jing1", "市": "shi4", "长": "chang2", "江": "jiang1", "大": "da4",
    "桥": "qiao2", "说": "shuo1",
}  # fmt: skip
# One of each kind of hearing: unaligned, aligned, aligned, none.
EXPORTED = {"zen-mmi", "lattice-m3t", "macbert-posterior", "bilstm-crf"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipes name, with tones for speech: a character has a pitch, all have a length."""
    folder = tmp_path_factory.mktemp("data")
    wav = folder / "data_aishell/wav/train/S0001"
    wav.mkdir(parents=True)
    ticks = np.arange(1600) / 16_000
    corpus, manifest = [], []
    for i, (text, entities) in enumerate(zip(TEXTS, ENTITIES, strict=True)):
        name = f"BAC009S0001W{i:04}"
        tones = [0.3 * np.sin(2 * np.pi * (200 + 50 * ord(c) % 997) * ticks) for c in text]
        soundfile.write(wav / f"{name}.wav", np.concatenate(tones), 16_000)
        corpus.append({"sentence": text, "audio": name, "entity": entities})
        manifest.append(
            {
                "text": text,
                "audio": f"data_aishell/wav/train/S0001/{name}.wav",
                "entities": entities,
                "characters": [[100 * k, 100 * k + 100] for k in range(len(text))],
                "readings": [READINGS[c] for c in text],
            }
        )
    for file, rows in (("train.json", corpus), ("valid.json", corpus[:1]), ("m.jsonl", manifest)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / file).write_text("".join(lines), encoding="utf-8")
    words = "南京\n南京市\n市长\n长江\n大桥\n长江大桥\n江大桥\n"
    (folder / "words.txt").write_text(words, encoding="utf-8")
    write_vectors(folder / "vectors.txt", list(READINGS), 6)
    write_vectors(folder / "word_vectors.txt", words.split(), 4)
    write_bert(folder / "bert")
    zen_checkpoint.write(folder / "zen", zen_checkpoint.published())
    for kind in ("whisper", "hubert"):
        acoustic_checkpoint.write(folder / kind, kind)
    return folder


def write_vectors(path: Path, words: list[str], size: int) -> None:
    """Vectors as word2vec writes them."""
    lines = (f"{word} {' '.join(['0.1'] * i + ['-0.1'] * (size - i))}" for i, word in
             enumerate(words, 1) if i <= size)  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_bert(folder: Path) -> None:
    """A BERT as the hub has them, in small, with random weights."""
    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *READINGS]
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=64,
        )
    ).save_pretrained(folder)  # fmt: skip


def shrunken(name: str) -> Recipe:
    """A recipe at a size for tests: what it composes stays as it is, and so do its tasks."""
    recipe = load_recipe(name)
    replace = msgspec.structs.replace
    acoustic = replace(
        recipe.model.acoustic,
        mel_bins=40, conv_channels=2, width=8, layers=1, heads=2, feed_forward=8,
        left_frames=8, chunk_frames=4,
        checkpoint=small_ears(name) if recipe.model.acoustic.checkpoint else "",
    )  # fmt: skip
    text, fusion = recipe.model.text, recipe.model.fusion
    text = replace(
        text,
        checkpoint=("zen" if text.encoder == "zen" else "bert") if text.checkpoint else "",
        lexicon="words.txt" if text.lexicon else "",
        embedding=6,
        embeddings="vectors.txt" if text.embeddings else "",
        word_embeddings="word_vectors.txt" if text.word_embeddings else "",
        word_embedding=4,
        hidden=8,
    )
    fusion = replace(
        fusion,
        width=8 if fusion.width else 0,
        heads=2,
        feed_forward=8,
        context=4 if fusion.context else 0,
        pause_context=min(2, fusion.pause_context),
        posterior_features=min(6, fusion.posterior_features),
    )
    gazetteer = recipe.model.gazetteer
    gazetteer = replace(gazetteer, lists="words.txt" if gazetteer.lists else "", width=4)
    model = replace(recipe.model, acoustic=acoustic, text=text, gazetteer=gazetteer, fusion=fusion)
    # Without development data the last epoch is kept: what was learnt, be it better or worse.
    stages = [replace(s, epochs=1, batch_size=2, warmup_steps=1, dev=[]) for s in recipe.stages]
    sources = {n: small_source(s) for n, s in recipe.data.items()}
    return replace(recipe, model=model, stages=stages, data=sources, min_tag_count=1)


def small_ears(name: str) -> str:
    """Folder of the pretrained acoustic encoder that a recipe starts from, in small."""
    return name.removesuffix("-m3t") if name.endswith("-m3t") else "whisper"


def small_source(source: Source) -> Source:
    if source.format != "cnerta":
        return Source(format="manifest", path="m.jsonl")
    path = "valid.json" if "valid" in source.path else "train.json"
    return Source(format="cnerta", path=path, audio_root=source.audio_root)


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> pytest.MonkeyPatch:
    """Exports each kind of acoustic graph once, but for those of pretrained encoders.

    All other models of this file are given the same acoustic weights, so that one file is right for
    all: the exporter's own check against torch runs for each of them nevertheless.
    """
    folder = tmp_path_factory.mktemp("graphs")

    def once(graph: nn.Module, example: tuple[torch.Tensor, ...], path: Path) -> None:
        shared = isinstance(graph, AcousticGraph | UtteranceGraph)
        if not shared or not isinstance(graph.encoder, AcousticEncoder):
            write_graph(graph, example, path)
            return
        settings = graph.encoder.config
        kept = folder / f"{type(graph).__name__}-{settings.positions}-{settings.norm}"
        if not kept.exists():
            write_graph(graph, example, kept)
        shutil.copy(kept, path)

    patch = pytest.MonkeyPatch()
    patch.setattr(write, "write_graph", once)
    yield patch
    patch.undo()


@pytest.fixture(scope="module")
def acoustic_weights() -> dict[str, dict[str, torch.Tensor]]:
    """Of each kind of encoder."""
    return {}


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_trains_exports_and_answers(
    name: str,
    data: Path,
    tmp_path: Path,
    exporter: pytest.MonkeyPatch,
    acoustic_weights: dict[str, dict[str, torch.Tensor]],
) -> None:
    recipe = shrunken(name)
    trainer = Trainer(recipe, data, tmp_path / "run", cpu=True)
    before = {n: v.clone() for n, v in trainer.model.state_dict().items()}
    checkpoint = load_checkpoint(trainer.run())
    after = checkpoint.model.state_dict()
    moved = {n for n, v in before.items() if not torch.equal(after[n], v)}
    fused = recipe.model.fusion.kind != "none"
    tasks = {s.task for s in recipe.stages}
    # The acoustic encoder is trained, if anything is learned from audio that is not frozen.
    spoken = any(s.format == "manifest" or s.audio_root for s in recipe.data.values())
    answers = [s for s in recipe.stages if s.task == "entities"]
    taught = any(not s.only_audio_head for s in answers)
    thawed = any(not s.freeze_acoustic for s in recipe.stages)
    uses_audio = spoken and thawed and (fused or recipe.model.ctc.weight > 0)
    parts = {
        "text.": taught,
        "emissions.": taught,
        "crf.": taught,
        "fusion.": fused and taught,
        "audio_head.": recipe.model.fusion.gated,
        "acoustic.": uses_audio or "acoustic" in tasks,
    }
    for part, expected in parts.items():
        assert any(n.startswith(part) for n in moved) == expected, part

    if name not in EXPORTED and "CNERTA_ALL" not in os.environ:
        return
    model = checkpoint.model
    if isinstance(model.acoustic, AcousticEncoder):
        kind = model.config.acoustic.norm
        shared = acoustic_weights.setdefault(kind, model.acoustic.state_dict())
        model.acoustic.load_state_dict(shared)
    written = write.export_bundle(checkpoint, tmp_path / "bundle")
    assert max(written.acoustic_difference, written.tagger_difference) <= 1e-4
    served = Model.load(tmp_path / "bundle", device="cpu")
    samples, _ = soundfile.read(next(data.rglob("*W0000.wav")), dtype="float32")
    frames = served.encode_recording(samples)
    silence = frames[:0]
    found = served.tag([TEXTS[0], *TEXTS], [frames, *[silence] * 4])
    characters = torch.zeros(5, 7, dtype=torch.int64)
    for row, text in zip(characters, [TEXTS[0], *TEXTS], strict=True):
        row[: len(text)] = torch.from_numpy(model.vocabulary.encode(text))
    matches = None
    if model.lexicon is not None:
        rows = [model.lexicon.match(t) for t in (TEXTS[0], *TEXTS)]
        matches = torch.from_numpy(pad_matches(rows))
    audio = torch.zeros(5, len(frames), 8)
    audio[0] = torch.from_numpy(frames)
    counts = torch.tensor([7, *map(len, TEXTS)])
    with torch.no_grad():
        output = model(characters, counts, audio, torch.tensor([len(frames), 0, 0, 0, 0]), matches)
    decoder = CrfDecoder(model.scheme, model.crf.parameters_as_values())
    expected = decoder.decode(output.emissions.numpy(), counts.tolist())
    assert [[s.span for s in a.spans] for a in found] == [[s.span for s in e] for e in expected]
    check_session(served, next(data.rglob("*W0000.wav")))


def check_session(served: Model, recording: Path) -> None:
    """A session with the model says of a recording what the model says of it."""
    text = TEXTS[0]
    audio_use = served.bundle.audio_use
    frames = served.encode_recording(soundfile.read(recording, dtype="float32")[0])
    (expected,) = served.tag([text], [frames[:0] if audio_use == "none" else frames])

    async def answers() -> list[ServerMessage]:
        # Random weights align anywhere; whether audio fits is tested elsewhere.
        fitting = dataclasses.replace(served.bundle, audio_fit_bound=-1e9)
        served.bundle = fitting
        line = TimedLine(text=text, start_ms=0, end_ms=100 * len(text))
        async with LocalConnection(served) as connection:
            source = AudioFile(recording, paced=False)
            return [m async for m in stream(connection, source, TimedTranscript([line]))]

    (final,) = [m for m in asyncio.run(answers()) if isinstance(m, UtteranceFinal)]
    assert final.audio_used == (audio_use != "none")
    assert final.time_source == ("alignment" if audio_use == "aligned" else "transcript")
    found = {(e.start, e.end, e.label) for e in final.entities}
    assert found == {(s.start, s.end, s.label) for s in expected.spans}
