from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import msgspec
import pytest

from cnerta.models.errors import DataError
from cnerta.train.synthesis.homograph_words import WordLists, read_word_lists, word_lists

CONTENT = (resources.files("cnerta.train.synthesis") / "homograph_words.toml").read_bytes().decode()


def lists() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every list that words are drawn from, by name."""
    values = word_lists()
    for field in msgspec.structs.fields(WordLists):
        value = getattr(values, field.name)
        if field.name in ("places", "trades"):
            yield from value.items()
        elif field.name == "school_levels":
            continue  # drawn from as a whole: the levels are no names
        elif isinstance(value, tuple) and isinstance(value[0], str | tuple):
            yield field.name, tuple(v if isinstance(v, str) else v[0] for v in value)
    yield "objects of named verbs", tuple(o for v in values.named_verbs for o in v.objects)


@pytest.mark.parametrize(("name", "entries"), list(lists()))
def test_every_list_has_entries_in_both_splits(name: str, entries: tuple[str, ...]) -> None:
    train, dev = (word_lists().share(entries, split) for split in ("train", "dev"))
    assert train, name
    assert dev, name
    assert not set(train) & set(dev)
    assert len(train) + len(dev) == len(entries)


def test_about_a_ninth_is_development() -> None:
    entries = {e for _, own in lists() for e in own}
    assert 0.08 < len(word_lists().share(sorted(entries), "dev")) / len(entries) < 0.14


def test_labelled_names_are_in_the_lists_that_they_label() -> None:
    values = word_lists()
    assert values.organisation_sites < set(values.sites)
    assert values.place_peoples < set(values.peoples)


def test_carriers_have_one_place_for_a_phrase() -> None:
    values = word_lists()
    assert all(c.count("{}") == 1 for c in (*values.carriers, *values.news_carriers))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('areas = "districts"', 'areas = "quarters"', "one of the places .* got 'quarters'"),
        ('trades = "schools"', 'trades = "shops"', "one of the trades .* got 'shops'"),
        ('salt = "51768"', "salt = 51768", r"Expected `str`, got `int` - at `\$.salt`"),
        ("assets = [", "asset = [", "unknown field `asset`"),
        ("]", "", "homograph_words.toml"),
    ],
)
def test_damaged_lists_are_refused(old: str, new: str, message: str) -> None:
    assert old in CONTENT
    with pytest.raises(DataError, match=message):
        read_word_lists(CONTENT.replace(old, new).encode())
