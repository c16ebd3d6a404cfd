"""The word lists that homograph pairs are combined from (``homograph_words.toml``), by split.

Each entry belongs to training or to development once and for all: about a ninth is development, by
a checksum of its text. So no city, name, noun or carrier sentence of development occurs in
training, whatever the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal, TypeVar

import msgspec

from cnerta.models.errors import DataError

__all__ = [
    "Chief",
    "Entry",
    "NamedVerb",
    "Office",
    "Readings",
    "Split",
    "WordLists",
    "read_word_lists",
    "word_lists",
]

Split = Literal["train", "dev"]
Words = tuple[str, ...]
Heads = tuple[tuple[str, bool], ...]

Entry = TypeVar("Entry", str, tuple[str, bool], tuple[str, ...])

_FILE = "homograph_words.toml"


class Office(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an area is called: 市 of cities.

    Attributes:
        suffix: The character after its name.
        areas: The list of those that are called so.
    """

    suffix: str
    areas: str


class Chief(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has a chief that is called 长: 队 and 队长.

    Attributes:
        suffix: The character for it.
        said: Its pinyin.
        label: Its entity type.
        owners: The list of places that have one.
        trades: The list of kinds that there are; empty for none.
    """

    suffix: str
    said: str
    label: str
    owners: str
    trades: str = ""


class NamedVerb(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verb that is also a surname.

    Attributes:
        character: It.
        verb: Its pinyin as a verb.
        surname: Its pinyin as a surname.
        objects: What may follow the verb and be a given name.
    """

    character: str
    verb: str
    surname: str
    objects: Words


class Readings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pinyin of words that the phrase dictionary reads wrongly, by where they are."""

    surnames: dict[str, str]
    places: dict[str, str]
    names: dict[str, str]


class WordLists(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lists. What each is for is said in the file.

    Heads are characters with whether they make a place with 长 or 和 before them.
    """

    salt: str
    long_heads: Heads
    and_heads: Heads
    tails: Words
    university_topics: Words
    overlapping_topics: tuple[tuple[str, str], ...]
    school_levels: Words
    industries: Words
    assets: Words
    citizen_deeds: Words
    sites: Words
    organisation_sites: frozenset[str]
    peoples: Words
    place_peoples: frozenset[str]
    roads: Words
    surnames: Words
    given_first: Words
    given_nouns: tuple[Words, ...]
    carriers: Words
    news_carriers: Words
    places: dict[str, Words]
    trades: dict[str, Words]
    readings: Readings
    offices: tuple[Office, ...]
    chiefs: tuple[Chief, ...]
    named_verbs: tuple[NamedVerb, ...]

    def __post_init__(self) -> None:
        """Refuse references to lists that are not there."""
        for name in [o.areas for o in self.offices] + [c.owners for c in self.chiefs]:
            if name not in self.places:
                raise ValueError(f"expected one of the places {list(self.places)}, got {name!r}")
        for chief in self.chiefs:
            if chief.trades and chief.trades not in self.trades:
                raise ValueError(
                    f"expected one of the trades {list(self.trades)}, got {chief.trades!r}"
                )

    def split_of(self, text: str) -> Split:
        """The split that an entry belongs to."""
        digest = hashlib.blake2b(f"{self.salt}{text}".encode(), digest_size=4).digest()
        return "dev" if int.from_bytes(digest, "big") % 4 == 0 else "train"

    def share(self, values: Sequence[Entry], split: Split) -> tuple[Entry, ...]:
        """The part of a list that belongs to a split; a tuple goes where its first entry goes."""
        return tuple(v for v in values if self.split_of(v if isinstance(v, str) else v[0]) == split)


@cache
def word_lists() -> WordLists:
    """The lists of this package.

    Raises:
        DataError: The file is damaged.
    """
    content = (resources.files("cnerta.train.synthesis") / _FILE).read_bytes()
    return read_word_lists(content)


def read_word_lists(content: bytes) -> WordLists:
    """Read lists in the form of ``homograph_words.toml``.

    Raises:
        DataError: They have another form, or refer to lists that are not there.
    """
    try:
        return msgspec.toml.decode(content, type=WordLists)
    except msgspec.MsgspecError as error:
        raise DataError(f"expected word lists in {_FILE}, got: {error}") from error
