"""The sources of a recipe together: which of them must not share a sentence with which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cnerta.models.errors import ConfigError, DataError
from cnerta.train.data.examples import Example, read_source
from cnerta.train.data.streams import Piece, stream_pieces
from cnerta.train.recipe import Source

__all__ = ["read_sources", "read_streams"]


def read_sources(
    sources: Mapping[str, Source],
    names: Iterable[str],
    data_root: Path,
    *,
    cache: Path | None = None,
) -> dict[str, list[Example]]:
    """Read sources of a recipe, each without the sentences of those that it excludes.

    Args:
        sources: All of the recipe's.
        names: The ones to read.
        data_root: Folder that their paths are relative to.
        cache: Folder that remembers what archives hold.

    Returns:
        Examples by name of the source, in the order of ``names``.

    Raises:
        ConfigError: A source excludes one that is not in the recipe, or itself.
        DataError: A file is missing or damaged, or all of a source is excluded.
    """
    read: dict[str, list[Example]] = {}

    def examples_of(name: str) -> list[Example]:
        if name not in read:
            read[name] = read_source(sources[name], data_root, cache=cache)
        return read[name]

    found = {}
    for name in names:
        examples = examples_of(name)
        _check_excluded(sources, name)
        # What is excluded is excluded as the other source would be read by itself. A recording may
        # be written down in two ways, so its name counts too.
        excluded = [e for other in sources[name].exclude_texts_of for e in examples_of(other)]
        texts = {e.text for e in excluded} - {""}
        recordings = {e.name for e in excluded} - {""}
        kept = [e for e in examples if e.text not in texts and e.name not in recordings]
        if not kept:
            raise DataError(f"source {name!r}: expected a sentence that is not excluded, got none")
        found[name] = kept
    return found


def read_streams(
    sources: Mapping[str, Source],
    names: Iterable[str],
    data_root: Path,
    *,
    cache: Path | None = None,
) -> dict[str, list[Piece]]:
    """The pieces of sources that are streamed, each without what they exclude.

    Args:
        sources: All of the recipe's.
        names: The ones to read.
        data_root: Folder that their paths are relative to.
        cache: Folder that remembers what archives hold.

    Raises:
        ConfigError: A source excludes one that is not in the recipe, itself, or another stream,
            whose sentences are not known.
        DataError: There is no such source.
    """
    found = {}
    for name in names:
        _check_excluded(sources, name)
        others = sources[name].exclude_texts_of
        for other in others:
            if sources[other].stream:
                raise ConfigError(
                    f"source {name!r}: expected exclude_texts_of to name sources that are not "
                    f"streamed, got {other!r}"
                )
        unwanted = [e for o in others for e in read_source(sources[o], data_root, cache=cache)]
        found[name] = stream_pieces(sources[name], data_root, unwanted)
    return found


def _check_excluded(sources: Mapping[str, Source], name: str) -> None:
    for other in sources[name].exclude_texts_of:
        if other not in sources or other == name:
            raise ConfigError(
                f"source {name!r}: expected exclude_texts_of to name other sources of "
                f"{sorted(sources)}, got {other!r}"
            )
