from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cnerta.models.runtime.labels import Span
from cnerta.train.commands.train import app
from cnerta.train.data.examples import Example
from cnerta.train.data.statistics import Spread, corpus_statistics, find_overlap

CORPUS = [
    Example(
        "南京市长江大桥",
        (Span(0, 3, "LOC"), Span(0, 2, "LOC"), Span(3, 7, "LOC")),
        Path("a.wav"),
        name="a",
        speaker="S0002",
    ),
    Example(
        "北京大学的李",
        (Span(0, 4, "ORG"), Span(0, 2, "LOC"), Span(5, 6, "PER"), Span(0, 1, "LOC")),
        Path("b.wav"),
        name="b",
        speaker="S0003",
    ),
    Example("你好", (), name="c", speaker="S0002"),
    Example("谢谢你", None),
]


def test_a_corpus_is_counted() -> None:
    found = corpus_statistics(CORPUS, lambda e: {"a": 3.0, "b": 6.0}[e.name])
    assert (found.sentences, found.annotated, found.with_entities) == (4, 3, 2)
    assert found.nested_sentences == 2
    assert found.nested_share == 100.0
    assert found.characters == 18
    assert found.lengths == Spread(2, 4.5, 7)
    assert (found.spoken, found.speakers) == (2, 2)
    assert found.hours == pytest.approx(9 / 3600)
    assert found.seconds == Spread(3, 4.5, 6)
    assert found.entities == {"LOC": 5, "ORG": 1, "PER": 1}
    assert found.nested_entities == {"LOC": 3}
    assert found.entity_lengths == Spread(1, pytest.approx(17 / 7), 4)  # type: ignore[arg-type]
    assert found.nested_entity_share == pytest.approx(100 * 3 / 7)
    assert (found.duplicates, found.repeated_in) == (0, [])
    assert found.depth == 3


def test_an_entity_that_is_annotated_twice_is_named_and_counts_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entity = [0, 2, "北京", "LOC"]
    rows = [
        {"sentence": "北京大学", "audio": "BAC009S0002W0001", "entity": [entity, entity, entity]},
        {"sentence": "他在北京", "audio": "BAC009S0002W0002", "entity": [[2, 4, "北京", "LOC"]]},
    ]
    path = tmp_path / "test.json"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    result = CliRunner().invoke(app, ["statistics", str(path), "--json"])
    (found,) = json.loads(result.stdout).values()
    assert (found["entities"], found["duplicates"]) == ({"LOC": 2}, 2)
    assert found["repeated_in"] == ["BAC009S0002W0001"]
    assert "2 entities are annotated twice and count once: BAC009S0002W0001" in caplog.text
    shown = CliRunner().invoke(app, ["statistics", str(path)]).stdout
    cells = [line.split("│") for line in shown.splitlines()]
    counts = {c[1].strip(): c[2].strip() for c in cells if len(c) > 2}
    assert counts["entities"] == "2"
    assert counts["as the annotation has them (the paper's)"] == "4"
    assert counts["of these annotated twice"] == "2"
    assert counts["inside another (of all)"] == "0 (0.0 %)"
    assert counts["with nested entities (of those with any)"] == "0 (0.0 %)"
    assert "test, annotated twice: BAC009S0002W0001" in shown


def test_nothing_is_counted_too() -> None:
    found = corpus_statistics([Example("", None)], lambda _: 0.0)
    assert found.nested_share == found.hours == found.depth == 0
    assert found.seconds == Spread(0, 0, 0)


@given(
    st.sets(
        st.builds(
            lambda s, n, label: Span(s, s + n, label),
            st.integers(0, 5), st.integers(1, 6), st.sampled_from("AB"),
        ),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_depth_is_the_longest_chain_of_entities(spans: set[Span]) -> None:
    def inside(inner: Span, outer: Span) -> bool:
        return outer.start <= inner.start and inner.end <= outer.end and inner != outer

    def chains(chain: list[Span]) -> int:
        # Of two with the same extent either may be the inner one, but not both.
        further = [
            s for s in spans
            if s not in chain and all(inside(s, c) for c in chain)
        ]  # fmt: skip
        return max((chains([*chain, s]) for s in further), default=len(chain))

    found = corpus_statistics([Example("x" * 12, tuple(spans))], lambda _: 0.0)
    assert found.depth == chains([])


def test_what_two_corpora_share_is_found() -> None:
    other = [
        Example("你好。", None, name="z", speaker="S0003"),
        Example("南京", None, name="b"),
        Example("", None, name=""),
    ]
    overlap = find_overlap(CORPUS, other)
    assert overlap.texts == ["你好"]
    assert overlap.recordings == ["b"]
    assert overlap.speakers == ["S0003"]
    assert find_overlap(CORPUS, [Example("", None)]).texts == []


def write(folder: Path, name: str, *texts: str, voice: str = "v") -> Path:
    rows = []
    for i, text in enumerate(texts):
        soundfile.write(folder / f"{name}-{i}.wav", np.zeros(8_000), 16_000)
        entities = [[0, 2, text[:2], "LOC"], [0, 1, text[:1], "PER"]]
        rows.append(
            {"audio": f"{name}-{i}.wav", "text": text, "entities": entities, "voice": voice}
        )
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    files = [str(write(tmp_path, "one", "南京", "北京")), str(write(tmp_path, "two", "上海"))]
    plain = CliRunner().invoke(app, ["statistics", *files])
    assert plain.exit_code == 0, plain.output
    row = next(line for line in plain.output.splitlines() if "sentences" in line)
    assert [int(n) for n in row.split("│")[2:5]] == [2, 1, 3]
    found = json.loads(CliRunner().invoke(app, ["statistics", *files, "--json"]).stdout)
    assert list(found) == ["one", "two", "all"]
    assert found["all"]["entities"] == {"LOC": 3, "PER": 3}
    assert found["all"]["nested_entities"] == {"PER": 3}
    assert found["all"]["hours"] == pytest.approx(1.5 / 3600)


def test_the_command_fails_on_what_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path, "one", "南京")
    (tmp_path / "one-0.wav").unlink()
    result = CliRunner().invoke(app, ["statistics", str(path)])
    assert result.exit_code == 1
    assert "got none of 1: one-0.wav (line 1)" in result.output


def test_a_recipe_is_checked_where_it_trains_and_measures(tmp_path: Path) -> None:
    write(tmp_path, "train", "南京", "北京")
    write(tmp_path, "more", "上海", voice="w")
    write(tmp_path, "dev", "北京")
    recipe = tmp_path / "recipe.toml"
    sources = "".join(
        f'[data.{n}]\nformat = "manifest"\npath = "{n}.jsonl"\n' for n in ("train", "more", "dev")
    )
    stage = (
        '[[stages]]\nname = "s"\ntask = "entities"\ntrain = ["train", "more"]\n'
        'dev = ["dev"]\nepochs = 1\n'
    )
    recipe.write_text(f'name = "r"\n{sources}{stage}')
    command = ["check", str(recipe), "--data-root", str(tmp_path)]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 1
    rows = {(r["first"], r["second"]): r["overlap"] for r in json.loads(result.stdout)}
    assert list(rows) == [("train", "dev"), ("more", "dev")]
    assert rows["train", "dev"] == {"texts": ["北京"], "recordings": [], "speakers": ["v"]}
    assert rows["more", "dev"] == {"texts": [], "recordings": [], "speakers": []}
    assert "train and dev, texts: 北京" in CliRunner().invoke(app, command).output
    apart = [str(tmp_path / f"{n}.jsonl") for n in ("train", "more")]
    assert CliRunner().invoke(app, ["check", *apart]).exit_code == 0


def test_what_is_measured_outside_a_recipe_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path, "train", "南京", "北京", "上海")
    write(tmp_path, "dev", "北京")
    other = write(tmp_path, "other", "上海", "广州", voice="w")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "r"\n'
        '[data.train]\nformat = "manifest"\npath = "train.jsonl"\nexclude_texts_of = ["dev"]\n'
        '[data.dev]\nformat = "manifest"\npath = "dev.jsonl"\n'
        '[data.unused]\nformat = "manifest"\npath = "not-there.jsonl"\n'
        '[[stages]]\nname = "s"\ntask = "entities"\ntrain = ["train"]\ndev = []\nepochs = 1\n'
    )
    command = ["check", str(recipe), "--data-root", str(tmp_path), "--json"]
    clean = CliRunner().invoke(app, [*command, "--evaluate", "dev"])
    assert clean.exit_code == 0, clean.output
    assert [(r["first"], r["second"]) for r in json.loads(clean.stdout)] == [("train", "dev")]
    found = CliRunner().invoke(app, [*command, "--evaluate", "dev", "--evaluate", str(other)])
    assert found.exit_code == 1
    assert json.loads(found.stdout)[1]["overlap"]["texts"] == ["上海"]
    gone = CliRunner().invoke(app, [*command, "--evaluate", str(tmp_path / "gone.jsonl")])
    assert gone.exit_code == 1
    assert "gone.jsonl" in gone.output.replace("\n", "")
    files = CliRunner().invoke(app, ["check", str(other), "--evaluate", "dev"])
    assert files.exit_code == 1
    assert "expected one recipe with --evaluate" in files.output.replace("\n", " ")
