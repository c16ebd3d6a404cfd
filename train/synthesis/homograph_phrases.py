"""The ambiguous part of a homograph pair, by family: one function draws one phrase.

There are two kinds:

* `pronounced`: a character is also said differently (长 cháng or zhǎng, 查 chá or the surname Zhā);
* `paused`: only where the speaker pauses differs (南京|大学生活动, 南京大学|生活动).

Annotation follows CNERTA: 某某市 is one place without an inner one, an organisation or a road holds
the place in its name (上海大学 holds 上海), a place before a place stands beside it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cnerta.train.synthesis.homograph_words import Entry, Split, WordLists
from cnerta.train.synthesis.marked_words import usual_pinyin

__all__ = ["FAMILIES", "Draw", "Family", "Kind", "Phrase"]

Kind = Literal["pronounced", "paused"]


@dataclass(frozen=True, slots=True)
class Phrase:
    """The ambiguous part: two marked readings and, for each, its entities as (surface, label)."""

    family: str
    kind: Kind
    names: tuple[str, ...]
    first: str
    first_entities: tuple[tuple[str, str], ...]
    second: str
    second_entities: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws words of one split.

    Attributes:
        lists: All words.
        split: The split whose words are drawn.
        rng: Decides.
    """

    lists: WordLists
    split: Split
    rng: random.Random

    def share(self, values: Sequence[Entry]) -> tuple[Entry, ...]:
        """The part of a list that belongs to the split."""
        return self.lists.share(values, self.split)

    def one(self, values: Sequence[Entry]) -> Entry:
        """One entry of that part."""
        return self.rng.choice(self.share(values))

    def said(self, name: str) -> str:
        """Pinyin of a name or a word, syllables separated by spaces."""
        return self.lists.readings.names.get(name) or " ".join(usual_pinyin(name))


@dataclass(frozen=True, slots=True)
class _Chang:
    """A place that starts with 长, and the person left when 长 belongs to the office before it."""

    place: str
    place_marked: str
    place_entities: tuple[tuple[str, str], ...]
    person: str
    person_marked: str


def _chang(draw: Draw) -> _Chang:
    head, known = draw.one(draw.lists.long_heads)
    tail = draw.rng.choice([t for t in draw.share(draw.lists.tails) if not t.startswith(head)])
    place, person = f"长{head}{tail}", f"{head}{tail}"
    as_place = draw.lists.readings.places.get(head) or draw.said(head)
    as_surname = draw.lists.readings.surnames.get(head) or draw.said(head)
    inner = ((f"长{head}", "LOC"),) if known else ()
    return _Chang(
        place,
        f"{place}(chang2 {as_place} {draw.said(tail)})",
        ((place, "LOC"), *inner),
        person,
        f"{person}({as_surname} {draw.said(tail)})",
    )


def _mayor(draw: Draw) -> Phrase:
    """南京市|长江大桥 and 南京/市长|江大桥; the same for 省, 区 and 县."""
    office = draw.rng.choice(draw.lists.offices)
    suffix, area = office.suffix, draw.one(draw.lists.places[office.areas])
    chang = _chang(draw)
    return Phrase(
        "mayor",
        "pronounced",
        (area, chang.place, chang.person),
        f"{area}{suffix}({draw.said(area)} {draw.said(suffix)})|{chang.place_marked}",
        ((area + suffix, "LOC"), *chang.place_entities),
        f"{area}({draw.said(area)})/{suffix}长({draw.said(suffix)} zhang3)|{chang.person_marked}",
        ((area, "LOC"), (chang.person, "PER")),
    )


def _downtown(draw: Draw) -> Phrase:
    """南京|市区|长江路 and 南京市|区长|江路."""
    city = draw.one(draw.lists.places["cities"])
    chang = _chang(draw)
    return Phrase(
        "downtown",
        "pronounced",
        (city, chang.place, chang.person),
        f"{city}/市区|{chang.place_marked}",
        ((city, "LOC"), *chang.place_entities),
        f"{city}市|区长(qu1 zhang3)/{chang.person_marked}",
        ((city + "市", "LOC"), (chang.person, "PER")),
    )


def _chief(draw: Draw) -> Phrase:
    """中国队|长安路 and 中国/队长|安路; stations, factories and schools likewise."""
    chief = draw.rng.choice(draw.lists.chiefs)
    suffix = chief.suffix
    owner = draw.one(draw.lists.places[chief.owners])
    trade = draw.one(draw.lists.trades[chief.trades]) if chief.trades else ""
    chang = _chang(draw)
    return Phrase(
        "chief",
        "pronounced",
        (owner, chang.place, chang.person),
        f"{owner}{trade}{suffix}|{chang.place_marked}",
        ((owner + trade + suffix, chief.label), (owner, "LOC"), *chang.place_entities),
        f"{owner} {trade}/{suffix}长({chief.said} zhang3)|{chang.person_marked}".replace(" /", "/"),
        ((owner, "LOC"), (chang.person, "PER")),
    )


def _named_verb(draw: Draw) -> Phrase:
    """南京/曾建桥: once (céng) built a bridge, or a person called Zēng Jiànqiáo."""
    known = [verb for verb in draw.lists.named_verbs if draw.share(verb.objects)]
    verb = draw.rng.choice(known)
    character = verb.character
    city = draw.one(draw.lists.places["cities"])
    name = draw.one(verb.objects)
    rest = draw.said(name)
    if character == "曾":
        first = f"{city}/曾(ceng2) {name}({rest})"
    else:
        first = f"{city}/{character}{name}({verb.verb} {rest})"
    return Phrase(
        "named-verb",
        "pronounced",
        (city, character + name),
        first,
        ((city, "LOC"),),
        f"{city}/{character}{name}({verb.surname} {rest})",
        ((city, "LOC"), (character + name, "PER")),
    )


def _student(draw: Draw) -> Phrase:
    """上海大学|生活动 and 上海|大学生活动."""
    city = draw.one(draw.lists.places["cities"])
    level = draw.rng.choice(draw.lists.school_levels)
    if level == "大学" and draw.rng.random() < 0.25:
        left, right = draw.one(draw.lists.overlapping_topics)
        first, second = f"{city}{level}|{left}", f"{city}|{level}生 {right}"
        topic = left.replace(" ", "")
    else:
        topic = draw.one(draw.lists.university_topics)
        first, second = f"{city}{level}|生 {topic}", f"{city}|{level}生 {topic}"
    return Phrase(
        "student",
        "paused",
        (city, topic),
        first,
        ((city + level, "ORG"), (city, "LOC")),
        second,
        ((city, "LOC"),),
    )


def _company(draw: Draw) -> Phrase:
    """中国移动|业务, a company's, and 中国|移动业务, a country's."""
    area = draw.one(draw.lists.places["states" if draw.rng.random() < 0.4 else "cities"])
    industry = draw.one(draw.lists.industries)
    asset = draw.one(draw.lists.assets)
    return Phrase(
        "company",
        "paused",
        (area, industry, asset),
        f"{area}{industry}|{asset}",
        ((area + industry, "ORG"), (area, "LOC")),
        f"{area}|{industry} {asset}",
        ((area, "LOC"),),
    )


def _people(draw: Draw) -> Phrase:
    """中国人民银行, one institution, and 中国|人民|银行."""
    area = draw.one(draw.lists.places["states" if draw.rng.random() < 0.3 else "cities"])
    what = draw.one(draw.lists.peoples)
    label = "LOC" if what in draw.lists.place_peoples else "ORG"
    return Phrase(
        "people",
        "paused",
        (area, what),
        f"{area}人民{what}",
        ((f"{area}人民{what}", label), (area, "LOC")),
        f"{area}|人民|{what}",
        ((area, "LOC"),),
    )


def _road(draw: Draw) -> Phrase:
    """南京东路, one road, and 南京|东路, a road in the city."""
    city = draw.one(draw.lists.places["cities"])
    road = draw.one(draw.lists.roads)
    return Phrase(
        "road",
        "paused",
        (city, road),
        f"{city}{road}",
        ((city + road, "LOC"), (city, "LOC")),
        f"{city}|{road}",
        ((city, "LOC"), (road, "LOC")),
    )


def _citizen(draw: Draw) -> Phrase:
    """南京市|民办学校 and 南京|市民|办学校."""
    city = draw.one(draw.lists.places["cities"])
    left, right = draw.one(draw.lists.citizen_deeds).split()
    return Phrase(
        "citizen",
        "paused",
        (city, right),
        f"{city}市|民{left} {right}",
        ((city + "市", "LOC"),),
        f"{city}|市民|{left} {right}",
        ((city, "LOC"),),
    )


def _given_name(draw: Draw) -> Phrase:
    """王立新|书 and 王立|新书: where the name ends."""
    surname = draw.one(draw.lists.surnames)
    second, *nouns = draw.one(draw.lists.given_nouns)
    first = draw.rng.choice([g for g in draw.share(draw.lists.given_first) if g != second])
    noun = draw.rng.choice(nouns)
    read = draw.said(surname)
    given = usual_pinyin(first + second)
    whole = f"{surname}{first}{second}"
    return Phrase(
        "given-name",
        "paused",
        (whole, surname + first),
        f"{whole}({read} {' '.join(given)})|{noun}",
        ((whole, "PER"),),
        f"{surname}{first}({read} {given[0]})|{second}{noun}",
        ((surname + first, "PER"),),
    )


def _together(draw: Draw) -> Phrase:
    """张伟|和平路 and 张伟|和|平路: a road, or a second person."""
    surname = draw.one(draw.lists.surnames)
    first = draw.one(draw.lists.given_first)
    head, known = draw.one(draw.lists.and_heads)
    tail = draw.rng.choice([t for t in draw.share(draw.lists.tails) if not t.startswith(head)])
    inner = ((f"和{head}", "LOC"),) if known else ()
    friend = f"{surname}{first}({draw.said(surname)} {draw.said(first)})"
    rest = f"{draw.said(head)} {draw.said(tail)}"
    return Phrase(
        "together",
        "paused",
        (surname + first, f"和{head}{tail}", head + tail),
        f"{friend}|和{head}{tail}(he2 {rest})",
        ((surname + first, "PER"), (f"和{head}{tail}", "LOC"), *inner),
        f"{friend} 和(he2)|{head}{tail}({rest})",
        ((surname + first, "PER"), (head + tail, "PER")),
    )


def _site(draw: Draw) -> Phrase:
    """南京大桥, the bridge called so, and 南京|大桥, a bridge of the city."""
    city = draw.one(draw.lists.places["cities"])
    site = draw.one(draw.lists.sites)
    label = "ORG" if site in draw.lists.organisation_sites else "LOC"
    return Phrase(
        "site",
        "paused",
        (city, site),
        f"{city}{site}",
        ((city + site, label), (city, "LOC")),
        f"{city}|{site}",
        ((city, "LOC"),),
    )


Family = Callable[[Draw], Phrase]

FAMILIES: tuple[Family, ...] = (
    _mayor,
    _student,
    _chief,
    _company,
    _mayor,
    _given_name,
    _named_verb,
    _road,
    _downtown,
    _together,
    _people,
    _citizen,
    _site,
)
"""Families in the order they take turns."""
