"""The project's documents, as far as tests look into them: code blocks, links, headings.

A fenced block says what it is in its first word: ``sh`` and ``python`` are run, the others are
not. A second word names the file that the block is the content of, as in ``toml mine.toml``; it is
written where the commands of the page run. A comment on a line of its own before a block says how
the block is special:

    <!-- not run: it needs a microphone -->   it is only shown, for this reason
    <!-- in the background: /readyz -->       it runs until the page ends; what follows waits until
                                              this path of the server answers
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["ROOT", "Block", "Page", "all_pages"]

ROOT: Final = Path(__file__).resolve().parents[2]
_MARKER: Final = re.compile(r"<!-- (not run|in the background): (.+?) -->\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code.

    Attributes:
        language: First word of its head; empty if it has none.
        file: Name of the file that it is the content of; empty if it is none.
        code: What is in it.
        line: Its first line in the page, from 1.
        not_run: Why it is not run; empty if it is.
        background: What the server answers at when it is up; empty if it does not run on.
    """

    language: str
    file: str
    code: str
    line: int
    not_run: str = ""
    background: str = ""


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path below the root."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @property
    def blocks(self) -> list[Block]:
        """Its blocks of code, in order."""
        found = []
        marker: re.Match[str] | None = None
        for token in self._tokens:
            if token.type in ("fence", "code_block"):
                words = token.info.split()
                kind, value = marker.groups() if marker else ("", "")
                found.append(
                    Block(
                        language=words[0] if words else "",
                        file=words[1] if len(words) > 1 else "",
                        code=token.content,
                        line=token.map[0] + 1 if token.map else 0,
                        not_run=value if kind == "not run" else "",
                        background=value if kind == "in the background" else "",
                    )
                )
            marker = _MARKER.fullmatch(token.content) if token.type == "html_block" else None
        return found

    @property
    def links(self) -> list[str]:
        """Where its links and pictures lead."""
        inside = [child for token in self._tokens for child in token.children or ()]
        found = [str(t.attrs[key]) for t in inside for key in ("href", "src") if key in t.attrs]
        for token in (*self._tokens, *inside):
            if token.type.startswith("html_"):
                found += re.findall(r'(?:href|src)="([^"]+)"', token.content)
        return found

    @property
    def anchors(self) -> set[str]:
        """What a link into the page may name, as GitHub makes it of headings."""
        seen: dict[str, int] = {}
        found = set()
        for token, content in zip(self._tokens, self._tokens[1:], strict=False):
            if token.type != "heading_open":
                continue
            words = "".join(child.content for child in content.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            count = seen.get(slug, 0)
            seen[slug] = count + 1
            found.add(f"{slug}-{count}" if count else slug)
        return found

    @property
    def prose(self) -> list[tuple[int, str]]:
        """Lines, with their numbers, that are in no block of code and no table."""
        inside: set[int] = set()
        for token in self._tokens:
            if token.map and token.type in ("fence", "code_block", "table_open", "html_block"):
                inside.update(range(*token.map))
        lines = self.text.splitlines()
        return [(number + 1, line) for number, line in enumerate(lines) if number not in inside]


def all_pages() -> list[Page]:
    """README, the changelog and everything under docs/."""
    return [
        Page(path)
        for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md")))
    ]
