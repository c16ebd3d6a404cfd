"""AISHELL-1's transcripts, and AISHELL-NER: the transcripts with brackets around entities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cnerta.models.errors import DataError
from cnerta.models.text.normalisation import normalise

__all__ = ["Transcripts", "find_transcripts", "parse_brackets", "read_bracketed"]

# Chen et al. (ICASSP 2022) and the files of their release.
_LABELS = {"[": "PER", "(": "LOC", "<": "ORG"}
_CLOSING = {"]": "[", ")": "(", ">": "<"}
_TRANSCRIPT = Path("transcript", "aishell_transcript_v0.8.txt")
# CNERTA has the one where copies of AISHELL-1 have the other.
_VARIANTS = str.maketrans("馀", "余")

Entity = tuple[int, int, str, str]
"""Start, end, mention, label."""


class Transcripts:
    """What was said in each of AISHELL-1's recordings, as its transcript file has it.

    Args:
        path: ``aishell_transcript_v0.8.txt``: lines of a name and words, parted by spaces.

    Raises:
        DataError: A line is not of this form.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                name, separator, text = line.strip().partition(" ")
                if not separator:
                    raise DataError(
                        f"{path}, line {number}: expected a name and a text, got {name!r}"
                    )
                self._texts[name] = text.replace(" ", "")

    def difference(self, name: str, text: str) -> str:
        """What is wrong with saying that a recording has this text; empty if nothing is."""
        said = self._texts.get(name)
        if said is None:
            return "no transcript"
        if _comparable(said) != _comparable(text):
            return f"{text!r} is transcribed {said!r}"
        return ""


def _comparable(text: str) -> str:
    return normalise(text).text.translate(_VARIANTS)


def find_transcripts(audio_root: Path) -> Transcripts | None:
    """AISHELL-1's transcripts beside or above its ``wav`` folder; None if they are not there."""
    for folder in (audio_root, audio_root.parent):
        if (folder / _TRANSCRIPT).is_file():
            return Transcripts(folder / _TRANSCRIPT)
    return None


def read_bracketed(path: Path) -> Iterator[tuple[int, str, str, list[Entity]]]:
    """Line number, name, text and entities of each sentence of AISHELL-NER.

    Raises:
        DataError: Brackets do not match, or a line has no text.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            name, _, marked = line.strip().partition(" ")
            try:
                text, entities = parse_brackets(marked)
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            yield number, name, text, entities


def parse_brackets(marked: str) -> tuple[str, list[Entity]]:
    """Text and entities of a sentence with ``[persons]``, ``(locations)`` and ``<organisations>``.

    Spaces, which part words in AISHELL's transcripts, are left out. Brackets within brackets are
    nested entities.

    Raises:
        DataError: Brackets do not match or hold nothing.
    """
    text: list[str] = []
    opened: list[tuple[str, int]] = []
    spans: list[tuple[int, int, str]] = []
    for character in marked:
        if character in _LABELS:
            opened.append((character, len(text)))
        elif character in _CLOSING:
            bracket, start = opened.pop() if opened else ("", 0)
            if bracket != _CLOSING[character] or start == len(text):
                raise DataError(f"expected brackets that match around entities, got {marked!r}")
            spans.append((start, len(text), _LABELS[bracket]))
        elif not character.isspace():
            text.append(character)
    if opened:
        raise DataError(f"expected brackets that match around entities, got {marked!r}")
    joined = "".join(text)
    return joined, [(s, e, joined[s:e], label) for s, e, label in sorted(spans)]
