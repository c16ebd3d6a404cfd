from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.errors import ConfigError
from cnerta.models.text.lexicon import (
    Lexicon,
    load_lexicon,
    pad_matches,
    read_lexicon,
    read_word_list,
    save_lexicon,
)

WORDS = ("南京", "南京市", "市长", "长江", "大桥", "长江大桥", "江", "京")


def lexicon(*words: str) -> Lexicon:
    return Lexicon(words, (1,) * len(words))


@given(
    st.sets(st.text("南京市长", min_size=1, max_size=4), max_size=12),
    st.text("南京市长江𠮷", max_size=12),
)
def test_every_occurrence_is_found_in_order(words: set[str], text: str) -> None:
    known = lexicon(*sorted(words))
    # Every stretch of the text, looked up: ends first, then starts.
    expected = [
        [start, end, known.words.index(text[start:end]) + 1]
        for end in range(len(text) + 1)
        for start in range(end)
        if text[start:end] in words
    ]
    found = known.match(text)
    assert found.dtype == np.int64
    assert found.shape == (len(expected), 3)
    assert found.tolist() == expected


def test_matches_are_padded_with_word_zero() -> None:
    known = lexicon(*WORDS)
    padded = pad_matches([known.match("市长"), known.match(""), known.match("长江大桥")])
    assert padded.tolist()[:2] == [[[0, 2, 3], [0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0] * 3] * 4]
    assert padded[2].tolist() == [[0, 2, 4], [1, 2, 7], [0, 4, 6], [2, 4, 5]]
    assert pad_matches([known.match("的")]).tolist() == [[[0, 0, 0]]]


def test_words_are_counted_where_no_longer_one_covers_them() -> None:
    known = Lexicon(("没有", *WORDS), (9,) * 9, ("x", *"abcdefgh"))
    counted = known.counted(["南京市长江大桥", "南京", "市长在江大桥"])
    by_word = dict(zip(counted.words, counted.counts, strict=True))
    assert by_word == {
        "南京": 1, "南京市": 1, "市长": 2, "长江": 1, "大桥": 1, "长江大桥": 1, "江": 1, "京": 1,
        "没有": 0,
    }  # fmt: skip
    # Words that never stand alone are met all the same; words that are not come last.
    assert counted.words == (*WORDS, "没有")
    assert counted.tags == (*"abcdefgh", "x")


def write(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def test_every_form_of_word_list_is_read(tmp_path: Path) -> None:
    thuocl = write(tmp_path, "places.txt", "南京\t1200 \n长江\t7\n\n")
    jieba = write(tmp_path, "dict.txt", "南京 12 ns\nB超 3 n\nＡ股 4 n\n大 桥\n")
    plain = write(tmp_path, "plain.txt", "南京\n大桥\n很长的一个词\n")
    vectors = write(tmp_path, "v.vec", "2 3\n南京 0.1 -2e-3 1\n桥 1 2 3\n")
    assert list(read_word_list(thuocl)) == [("南京", 1200, ""), ("长江", 7, "")]
    # As the model sees text: half-width, lower case.
    assert list(read_word_list(jieba))[:3] == [("南京", 12, "ns"), ("b超", 3, "n"), ("a股", 4, "n")]
    assert [w for w, _, _ in read_word_list(vectors)] == ["南京", "桥"]
    joined = read_lexicon([thuocl, jieba, plain, vectors], longest=5)
    assert joined.words[:4] == ("南京", "长江", "b超", "a股")
    assert "很长的一个词" not in joined.words
    first = joined.words.index("南京")
    assert joined.counts[first] == 1200
    assert joined.tags[first] == "places ns plain v"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    for known in (
        Lexicon(("长江大桥很长很长很长", "江"), (0, 2**31 - 1), ("ns places", "")),
        Lexicon(("江",), (5,)),
    ):
        save_lexicon(path, known)
        assert load_lexicon(path) == known


@pytest.mark.parametrize("content", ["", "江\n", "江\tx\t\n", "江\t1\t\n江\t1\t\n", "\t1\t\n"])
def test_a_damaged_lexicon_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        load_lexicon(write(tmp_path, "lexicon.txt", content))


def test_lists_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"readable word list in .*gone\.txt"):
        read_lexicon([tmp_path / "gone.txt"])
    with pytest.raises(ConfigError, match=r"expected words in .*empty\.txt"):
        read_lexicon([write(tmp_path, "empty.txt", "。\n")])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="readable word list"):
        read_lexicon([tmp_path / "binary"])
    with pytest.raises(ConfigError, match="once"):
        lexicon("江", "江")
    with pytest.raises(ConfigError, match="counts"):
        Lexicon(("江",), (-1,))
