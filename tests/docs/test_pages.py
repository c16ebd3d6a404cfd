"""Documents hold together: links lead somewhere, paths exist, blocks say what they are."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Final
from urllib.parse import unquote

import pytest

from .pages import ROOT, Block, Page, all_pages

LANGUAGES: Final = {
    "sh", "python", "javascript", "toml", "json", "jsonl", "text", "mermaid", "bibtex", "yaml",
    "html", "tsv",
}  # fmt: skip
LONGEST_LINE: Final = 240
FOLDERS: Final = ("models", "train", "export", "streamer", "tests", "docs")
PRIVATE_WORDS: Final = {
    r"\bears?\b": "acoustic encoder",
    r"\bthe interpreter\b": "the GIL",
    r"\bvoted\b": "pseudo-labelled",
    r"\bat hand\b": "available",
    r"\blearn\w* by heart\b": "memorised",
    r"`(?:hear|listen|settle)`": "acoustic, acoustic_finetune, finetune",
    r"\bcomplaints?\b": "error",
}
"""What this project once called things, and the field's word for each."""

PAGES = all_pages()
DOCUMENTS = [page for page in PAGES if page.name != "CHANGELOG.md"]


def each(pages: list[Page]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=[page.name for page in pages])


@each(PAGES)
def test_links_lead_somewhere(page: Page) -> None:
    dead = []
    for link in page.links:
        if re.match(r"(https?|mailto|wss?):", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / unquote(target)).resolve() if target else page.path
        there = path.exists() and path.is_relative_to(ROOT)
        if there and anchor:
            there = path.suffix == ".md" and unquote(anchor) in Page(path).anchors
        if not there:
            dead.append(link)
    assert not dead


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path.suffix != ".md" or not path.is_file():
            continue
        reached.add(path)
        links = [link.partition("#")[0] for link in Page(path).links if ":" not in link]
        waiting += [(path.parent / unquote(link)).resolve() for link in links if link]
    assert not {page.path for page in DOCUMENTS} - reached


@each(PAGES)
def test_lines_are_short_enough_to_review(page: Page) -> None:
    assert not [n for n, line in page.prose if len(line) > LONGEST_LINE]


@each(DOCUMENTS)
def test_blocks_say_what_they_are_and_data_can_be_read(page: Page) -> None:
    wrong = []
    for block in page.blocks:
        if block.language not in LANGUAGES:
            wrong.append((block.line, f"a block of {block.language or 'no language'}"))
        elif problem := unreadable(block):
            wrong.append((block.line, problem))
    assert not wrong


def unreadable(block: Block) -> str:
    """Why a block of data is none, if so."""
    try:
        if block.language == "toml":
            tomllib.loads(block.code)
        elif block.language == "json":
            json.loads(block.code)
        elif block.language == "jsonl":
            for line in block.code.splitlines():
                json.loads(line)
    except ValueError as error:
        return str(error)
    return ""


@each(DOCUMENTS)
def test_paths_of_the_tree_exist(page: Page) -> None:
    """A path in backticks that begins with one of the tree's folders is in the tree."""
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", page.text)
    assert not [path for path in named if not (ROOT / path).exists()]


@each(DOCUMENTS)
def test_documents_use_the_words_of_the_field(page: Page) -> None:
    found = {
        word: instead
        for word, instead in PRIVATE_WORDS.items()
        if any(re.search(word, line, re.IGNORECASE) for line in page.text.splitlines())
    }
    assert not found


def test_documents_that_the_tree_names_exist() -> None:
    dead = []
    sources = [path for folder in FOLDERS[:5] for path in (ROOT / folder).rglob("*")]
    for path in (*sources, ROOT / "Makefile", ROOT / "pyproject.toml"):
        if path.suffix not in (".py", ".toml", ".md", "") or not path.is_file():
            continue
        if "node_modules" in path.parts:  # other people's
            continue
        named = re.findall(r"(?<![\w./-])docs/[\w/-]+\.\w+", path.read_text(encoding="utf-8"))
        dead += [f"{path.relative_to(ROOT)}: {n}" for n in named if not (ROOT / n).exists()]
    assert not dead
