"""Glossary files: a name a line, with its label and, if wanted, its pronunciation."""

from __future__ import annotations

from pathlib import Path

from cnerta.streamer.errors import GlossaryFileError
from cnerta.streamer.session.names.glossary import read_pinyin
from cnerta.streamer.wire.messages import MAX_GLOSSARY_ENTRIES
from cnerta.streamer.wire.parts import GlossaryEntry

__all__ = ["read_glossary"]


def read_glossary(path: Path) -> tuple[GlossaryEntry, ...]:
    """Read lines such as ``江大桥<TAB>PER<TAB>jiang1 da4 qiao2``; the last part may be missing.

    Empty lines and lines that begin with ``#`` are left out.

    Raises:
        GlossaryFileError: The file cannot be read, or a line is not of this form.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise GlossaryFileError(f"expected a glossary at {path}, got: {reason}") from error
    entries: list[GlossaryEntry] = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            entries.append(_entry(line, f"{path}, line {number}"))
    if len(entries) > MAX_GLOSSARY_ENTRIES:
        raise GlossaryFileError(
            f"expected at most {MAX_GLOSSARY_ENTRIES} names in {path}, got {len(entries)}"
        )
    return tuple(entries)


def _entry(line: str, where: str) -> GlossaryEntry:
    name, label, *rest = [part.strip() for part in line.split("\t")] + [""] * ("\t" not in line)
    if not name or not label or len(rest) > 1:
        raise GlossaryFileError(
            f"{where}: expected name<TAB>label or name<TAB>label<TAB>pinyin, got {line[:60]!r}"
        )
    said = rest[0] if rest else ""
    if said and read_pinyin(said) is None:
        raise GlossaryFileError(
            f"{where}: expected pinyin with spaces between syllables, got {said[:60]!r}"
        )
    return GlossaryEntry(text=name, label=label, pronunciation=said or None)
