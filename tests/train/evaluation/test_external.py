"""The libraries are large and their models are fetched: these are fakes of their interfaces."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

import typer

from cnerta.models.errors import ConfigError
from cnerta.models.runtime.labels import Span
from cnerta.train.commands.evaluate import evaluate
from cnerta.train.evaluation.external import ExternalError, load_external
from cnerta.train.table.results import build_sections, choose_baselines
from cnerta.train.table.runs import find_runs, plan_external
from cnerta.train.table.table import markdown_table

TEXT = "李明十月在南京市的长江大桥代表北京大学和汉族"
FOUND = [("李明", "PERSON"), ("十月", "DATE"), ("南京市", "GPE"), ("长江大桥", "FAC"),
         ("北京大学", "ORG"), ("汉族", "NORP")]  # fmt: skip
OURS = [Span(0, 2, "PER"), Span(5, 8, "LOC"), Span(9, 13, "LOC"), Span(15, 19, "ORG")]


@dataclass(frozen=True)
class SpacyEntity:
    start_char: int
    end_char: int
    label_: str


@dataclass(frozen=True)
class StanzaEntity:
    start_char: int
    end_char: int
    type: str


class Pipeline:
    """Finds the words of ``FOUND``, as either library would say it."""

    pipe_names = ("tok2vec", "ner")
    meta = {"version": "3.8.0"}  # noqa: RUF012

    def __init__(self, entity: Any) -> None:
        self.entity = entity

    def __call__(self, text: str) -> SimpleNamespace:
        if not text.isalpha():
            raise RuntimeError("no such text")
        places = ((w, t, text.find(w)) for w, t in FOUND)
        return SimpleNamespace(
            ents=[self.entity(at, at + len(w), t) for w, t, at in places if at >= 0]
        )


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Pipeline:
        if name == "zh_blank":
            blank = Pipeline(SpacyEntity)
            blank.pipe_names = ("tok2vec",)  # type: ignore[assignment]
            return blank
        if name != "zh_fake":
            raise OSError(f"[E050] Can't find model '{name}'.")
        return Pipeline(SpacyEntity)

    def pipeline(language: str, *, processors: str, download_method: Any, verbose: bool) -> Any:
        assert (processors, download_method, verbose) == ("tokenize,ner", None, False)
        if language != "zh":
            raise FileNotFoundError("Resources file not found")
        return Pipeline(StanzaEntity)

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(__version__="3.8", load=load))
    stanza = SimpleNamespace(__version__="1.15", Pipeline=pipeline)
    monkeypatch.setitem(sys.modules, "stanza", stanza)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("name", ["spacy:zh_fake", "stanza:zh"])
def test_types_become_ours_or_nothing(name: str) -> None:
    pipeline = load_external(name)
    assert pipeline(TEXT) == OURS
    assert pipeline("他说") == []
    assert name.partition(":")[0] in pipeline.name
    with pytest.raises(ExternalError, match="no such text"):
        pipeline("3,5")


@pytest.mark.usefixtures("libraries")
def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExternalError, match="spacy download zh_core_web_trf"):
        load_external("spacy:zh_core_web_trf")
    with pytest.raises(ExternalError, match=r"stanza\.download\('en'\)"):
        load_external("stanza:en")
    with pytest.raises(ExternalError, match="entity recogniser in zh_blank"):
        load_external("spacy:zh_blank")
    for name in ("spacy", "spacy:", "nltk:zh", ""):
        with pytest.raises(ConfigError, match="expected spacy:MODEL or stanza:LANGUAGE"):
            load_external(name)
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ExternalError, match="pip install spacy"):
        load_external("spacy:zh_fake")


@pytest.mark.parametrize("library", ["spacy", "stanza"])
def test_a_missing_package_of_theirs_is_named(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As stanza without `udtools`: what is missing is not stanza."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / f"{library}.py").write_text("import nowhere_udtools.parts\n")
    expected = f"package nowhere_udtools, which {library} needs, got none: pip install nowhere"
    with pytest.raises(ExternalError, match=expected):
        load_external(f"{library}:zh")
    later = "def load(*_, **__):\n    import nowhere_jieba\nPipeline = load\n"
    (tmp_path / f"{library}.py").write_text(later)
    monkeypatch.delitem(sys.modules, library, raising=False)
    importlib.invalidate_caches()
    with pytest.raises(ExternalError, match=f"nowhere_jieba, which {library} needs"):
        load_external(f"{library}:zh")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    gold = [
        [s.start, s.end, TEXT[s.start : s.end], s.label] for s in (*OURS[:3], Span(5, 7, "LOC"))
    ]
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"text": TEXT, "entities": gold}) + "\n")
    return path


@pytest.mark.usefixtures("libraries")
def test_the_same_scorer_scores_them_flat_only(data: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(evaluate)
    arguments = ["--data", str(data), "--external", "spacy:zh_fake"]
    result = CliRunner().invoke(app, [*arguments, "--json", "--report", str(tmp_path / "r")])
    assert result.exit_code == 0, result.stderr
    scores = json.loads(result.stdout)
    assert scores["flat"]["precision"] == 75.0
    assert scores["flat"]["recall"] == 100.0
    assert scores["nested"] is None
    assert "Nested" not in (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    result = CliRunner().invoke(app, arguments)
    assert "flat" in result.stdout
    assert "nested" not in result.stdout
    result = CliRunner().invoke(app, [*arguments, "--bundle", "fast"])
    assert result.exit_code == 1
    assert "got more" in result.stderr


@pytest.mark.usefixtures("libraries")
def test_they_are_rows_of_a_table(data: Path, tmp_path: Path) -> None:
    from cnerta.train.recipe import Source
    from cnerta.train.table.grid import (
        Grid,
    )

    out = tmp_path / "out"
    sources = {"m": Source(format="manifest", path=data.name)}
    runs = plan_external(["stanza:zh", "spacy:zh_missing"], out)
    assert [r.name for r in runs] == ["stanza-zh", "spacy-zh_missing"]
    done = Grid([], ("", ""), sources, tmp_path, cpu=True).run(runs)
    (section,) = build_sections(done, ["m"])
    first, second = section.rows
    assert first.flat is not None
    assert (first.flat.precision.mean, first.nested) == (75.0, None)
    assert second.unscored[0][1].startswith("not scored: ExternalError: expected the spaCy model")
    markdown = markdown_table([section])
    scored = "75.00 | 100.00 | 85.71 | – | – | – | – | – | – | – |"
    assert f"| stanza-zh | – | – | – | 1 | Text | – | – | {scored}" in markdown
    assert "| spacy-zh_missing | – | – | – | 0 of 1 | Text | – | – | not scored |" in markdown
    assert [r.record.external for r in find_runs(out)] == ["spacy:zh_missing", "stanza:zh"]
    assert choose_baselines({"stanza-zh": None}, ()) == {}
