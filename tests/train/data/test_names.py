from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from cnerta.models.runtime.labels import Span
from cnerta.models.text.gazetteer import Gazetteer
from cnerta.models.text.lexicon import read_lexicon, read_word_list
from cnerta.train.commands.train import app
from cnerta.train.data.examples import Example
from cnerta.train.data.names import Name, collect_names

EXAMPLES = [
    Example("李大桥在南京", (Span(0, 3, "PER"), Span(4, 6, "LOC"))),
    Example("南京李", (Span(0, 2, "LOC"), Span(2, 3, "PER"))),
    *[Example("南京", (Span(0, 2, "LOC"),))] * 3,
    Example("南京", (Span(0, 2, "ORG"),)),
    Example("不知道", None),
]


def test_names_are_counted_with_their_types() -> None:
    # One slip in six, and what is one character long, are left out.
    assert collect_names(EXAMPLES) == [Name("南京", 6, ("LOC",)), Name("李大桥", 1, ("PER",))]
    assert collect_names(EXAMPLES, least=2) == [Name("南京", 6, ("LOC",))]
    assert collect_names(EXAMPLES, longest=2) == [Name("南京", 6, ("LOC",))]


def write(path: Path, *rows: tuple[str, list[tuple[int, int, str, str]]]) -> str:
    lines = (json.dumps({"text": t, "entities": e}, ensure_ascii=False) + "\n" for t, e in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def test_the_command_writes_a_list_that_a_gazetteer_reads(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", ("李大桥。", [(0, 3, "李大桥", "PER")]))
    two = write(
        tmp_path / "two.jsonl",
        ("南京！", [(0, 2, "南京", "LOC")]),
        ("北京", [(0, 2, "北京", "LOC")]),
    )
    dev = write(tmp_path / "dev.jsonl", ("北京？", []))
    out = tmp_path / "names.txt"
    arguments = ["names", one, two, "--out", str(out), "--without", dev]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert list(read_word_list(out)) == [("南京", 1, "name-LOC"), ("李大桥", 1, "name-PER")]
    gazetteer = Gazetteer.of(read_lexicon([out]))
    assert gazetteer.kinds == ("name-LOC", "name-PER")
    (match,) = gazetteer.match("在南京")
    assert match[:2].tolist() == [1, 3]


def test_a_list_without_names_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "one.jsonl", ("没有", []))
    for arguments, message in (
        ([data, "--out", str(tmp_path / "names.txt")], "expected names in"),
        ([data, "--out", str(tmp_path / "gone" / "names.txt")], "expected a folder"),
        ([data, "--out", str(tmp_path / "n.txt"), "--prefix", "a b"], "expected a prefix"),
    ):
        result = CliRunner().invoke(app, ["names", *arguments])
        assert result.exit_code == 1
        assert message in result.output.replace("\n", " ")
