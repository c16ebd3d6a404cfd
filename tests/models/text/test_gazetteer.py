from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.errors import ConfigError
from cnerta.models.text.gazetteer import Gazetteer, kinds_of
from cnerta.models.text.lexicon import Lexicon

WORDS = ("南京", "南京市", "市长", "长江", "大桥", "长江大桥", "长葛", "江", "很长很长很长很长很")
TAGS = ("ns", "ns places", "n", "ns", "n", "ns", "ns", "nr", "v")
COUNTS = (9, 9, 90, 9, 4, 0, 3, 9, 90)
LEXICON = Lexicon(WORDS, COUNTS, TAGS)

CHARACTERS = st.sampled_from("南京市长江大桥")


def told(gazetteer: Gazetteer, text: str) -> list[tuple[str, frozenset[str]]]:
    """The words found, in order, with their kinds."""
    return [
        (
            text[start:end],
            frozenset(
                kind
                for kind, is_member in zip(
                    gazetteer.kinds, gazetteer.members[combination], strict=True
                )
                if is_member
            ),
        )
        for start, end, combination in gazetteer.match(text).tolist()
    ]


def test_words_are_known_by_their_kinds() -> None:
    found = told(Gazetteer.of(LEXICON), "他说南京市长江大桥江")
    assert found == [
        ("南京", {"ns"}),
        ("南京市", {"ns", "places"}),
        ("市长", {"n"}),
        ("长江", {"ns"}),
        ("长江大桥", {"ns"}),
        ("大桥", {"n"}),
    ]


@given(
    st.dictionaries(st.text(CHARACTERS, min_size=2, max_size=8), st.sampled_from(["n", "ns nz"])),
    st.text(CHARACTERS, max_size=40),
)
def test_exactly_what_is_in_the_list_is_found(words: dict[str, str], text: str) -> None:
    words["长葛"] = "nr"  # a list without words is none
    lexicon = Lexicon(tuple(words), (1,) * len(words), tuple(words.values()))
    gazetteer = Gazetteer.of(lexicon)
    assert gazetteer.words == len(words)
    expected = [
        (text[start:end], kinds_of(words[text[start:end]]))
        for end in range(len(text) + 1)
        for start in range(end)
        if text[start:end] in words
    ]
    assert told(gazetteer, text) == expected


@pytest.mark.parametrize("text", ["", "江", "江大桥在", "𠮷野家"])
def test_matches_have_one_shape(text: str) -> None:
    found = Gazetteer.of(LEXICON).match(text)
    assert found.dtype == np.int64
    assert found.shape[1:] == (3,)


def test_ordinary_words_that_are_rare_are_left_out() -> None:
    gazetteer = Gazetteer.of(LEXICON, rare=10)
    # 大桥 is counted four times; names and what is in a list of its own stay.
    assert [word for word, _ in told(gazetteer, "南京市长江大桥")] == [
        "南京", "南京市", "市长", "长江", "长江大桥",
    ]  # fmt: skip


def test_kinds() -> None:
    assert kinds_of("vn nrfg nrt ns ad THUOCL_diming") == {
        "v", "nr", "nrt", "ns", "a", "THUOCL_diming",
    }  # fmt: skip
    assert kinds_of("") == frozenset()


def test_it_is_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    gazetteer = Gazetteer.of(LEXICON)
    gazetteer.save(path)
    again = Gazetteer.load(path)
    assert (again.kinds, len(again), again.words) == (gazetteer.kinds, len(gazetteer), 7)
    text = "南京市长江大桥在长葛"
    assert told(again, text) == told(gazetteer, text)
    gazetteer.save(tmp_path / "h.npz")
    assert (tmp_path / "h.npz").read_bytes() == path.read_bytes(), "the same each time"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    with pytest.raises(ConfigError, match=r"expected a gazetteer in .*g\.npz"):
        Gazetteer.load(path)
    Gazetteer.of(LEXICON).save(path)
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"expected a gazetteer in .*g\.npz"):
            Gazetteer.load(path)
    steps = np.zeros((8, 2), np.uint8)  # the same word twice
    np.savez(path, steps=steps, combinations=steps[0], members=np.eye(1) > 0, kinds=["n"])
    with pytest.raises(ConfigError, match="fit each other"):
        Gazetteer.load(path)


def test_lists_that_make_none() -> None:
    with pytest.raises(ConfigError, match="two to eight characters"):
        Gazetteer.of(Lexicon(("江",), (1,), ("nr",)))
    many = 1 << 16
    words = tuple(f"{chr(0x4E00 + i // 256)}{chr(0x4E00 + i % 256)}" for i in range(many))
    with pytest.raises(
        ConfigError, match="at most 65535 combinations of kinds, got 65536 words of 65536"
    ):
        Gazetteer.of(Lexicon(words, (1,) * many, tuple(f"list-{i}" for i in range(many))))


@pytest.mark.parametrize("count", [255, 256])
def test_many_lists_make_many_combinations(tmp_path: Path, count: int) -> None:
    words = tuple(f"{chr(0x4E00 + i)}江" for i in range(count))
    gazetteer = Gazetteer.of(Lexicon(words, (1,) * count, tuple(f"l-{i:04}" for i in range(count))))
    gazetteer.save(tmp_path / "g.npz")
    read = Gazetteer.load(tmp_path / "g.npz")
    assert len(read) == count
    for i in (0, count - 1):
        assert told(read, words[i]) == [(words[i], {f"l-{i:04}"})]
