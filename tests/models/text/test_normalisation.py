"""From the client's text to what is said, and back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnerta.models.runtime.decoding import ScoredSpan, whole_tokens
from cnerta.models.text.normalisation import NormalisedText, normalise
from cnerta.models.text.spoken_numbers import cardinal

NUMBERS = "2024 年 3 5 月 . , : - / % $ ￥ ０ 12 0 1,000 万 億 個 km ℃ m² Ⅳ ½ ③ 〇 1️⃣ ² ٣"
OTHERS = "南京 長江 乾 隆 於 馬 里 𠀀 ﬁ A ｂ 。 😀"
PIECES = [*NUMBERS.split(), *OTHERS.split(), " ", "\u3000", "e\u0301", "\u200b", "\ud800"]
mixed = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
any_text = st.one_of(mixed, st.text(max_size=20))
spoken_text = st.text("南京市长江大桥在北上海了他去", max_size=20)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2024年3月5日", "二零二四年三月五日"),
        ("２０２４年", "二零二四年"),
        ("二〇二四年", "二零二四年"),
        ("2024-03-05", "二零二四年三月五日"),
        ("98年", "九八年"),
        ("10年", "十年"),
        ("15年来", "十五年来"),
        ("3000年", "三千年"),
        ("1950", "一九五零"),
        ("1950人", "一千九百五十人"),
        ("2010-2015年", "二零一零到二零一五年"),
        ("90后", "九零后"),
        ("3.5%", "百分之三点五"),
        ("3%-5%", "百分之三到百分之五"),
        ("-5℃", "负五摄氏度"),
        ("12:30", "十二点三十分"),
        ("12：30", "十二点三十分"),
        ("12:00", "十二点"),
        ("2:05:09", "两点零五分零九秒"),
        ("比分3:2。", "比分三比二"),
        ("￥1,000", "一千元"),
        ("￥1,000元", "一千元"),
        ("$3.5亿", "三点五亿美元"),
        ("1/3", "三分之一"),
        ("½", "二分之一"),
        ("138-1234-5678", "一三八一二三四五六七八"),
        ("010-62345678", "零一零六二三四五六七八"),
        ("10086", "一零零八六"),
        ("35㎡", "三十五平方米"),
        ("100km/h", "一百公里每小时"),
        ("1.2.3", "一点二点三"),
        ("2个", "两个"),
        ("2月2日", "二月二日"),
        ("20000元", "两万元"),
        ("200元", "二百元"),
        ("1000000", "一百万"),
        ("A380和G20", "a三八零和g二十"),
        ("第Ⅳ③", "第四三"),
        ("今天1️⃣好😀", "今天好"),
        ("南京市長江大橋", "南京市长江大桥"),
        ("衞生部", "卫生部"),
        ("乾隆，乾淨", "乾隆干净"),
        ("他在Ｂ北京 ABC。\n", "他在b北京abc"),
        ("金", "金"),
    ],
)
def test_what_is_said(written: str, said: str) -> None:
    assert normalise(written).text == said


def counted(said: str) -> int:
    """The number that a cardinal says, read by rules of its own."""
    total = section = figure = 0
    for character in said:
        if character in "零一二三四五六七八九":
            figure = "零一二三四五六七八九".index(character)
        elif character == "两":
            figure = 2
        elif character in "十百千":
            section += (figure or 1) * {"十": 10, "百": 100, "千": 1000}[character]
            figure = 0
        elif character == "万":
            total += (section + figure) * 10**4
            section = figure = 0
        else:
            total = (total + section + figure) * 10**8
            section = figure = 0
    return total + section + figure


@given(st.one_of(st.integers(0, 10**16 - 1), st.integers(0, 10**5), st.integers(1, 999)))
@example(10**15)
@example(100_010_001)
def test_a_cardinal_says_its_number_and_no_other(value: int) -> None:
    said = cardinal(value)
    assert counted(said) == value
    assert "零零" not in said
    assert not (said.endswith("零") and value)


@given(any_text)
def test_every_character_keeps_its_way_back(text: str) -> None:
    normal = normalise(text)
    assert len(normal.text) == len(normal.offsets) == len(normal.ends)
    tokens = list(zip(normal.offsets.tolist(), normal.ends.tolist(), strict=True))
    assert all(0 <= start < end <= len(text) for start, end in tokens)
    for before, after in pairwise(tokens):
        assert after == before or after[0] >= before[1], "tokens are in order and do not overlap"
    for at in range(len(text) + 1):
        assert normal.utf16[at] == len(text[:at].encode("utf-16-le", "surrogatepass")) // 2


@given(any_text, st.data())
def test_ranges_lead_there_and_back_in_whole_tokens(text: str, data: st.DataObject) -> None:
    normal = normalise(text)
    tokens = list(zip(normal.offsets.tolist(), normal.ends.tolist(), strict=True))
    if tokens:
        start = data.draw(st.integers(0, len(tokens) - 1))
        end = data.draw(st.integers(start + 1, len(tokens)))
        first, last = normal.original_range(start, end)
        assert (first, last) == (tokens[start][0], tokens[end - 1][1])
        there, back = normal.normalised_range(first, last)
        assert there <= start < end <= back
        assert normal.original_range(there, back) == (first, last)
    first = data.draw(st.integers(0, len(text)))
    last = data.draw(st.integers(first, len(text)))
    if first < last:
        touched = [i for i, (s, e) in enumerate(tokens) if s < last and e > first]
        assert list(range(*normal.normalised_range(first, last))) == touched
    else:
        there, back = normal.normalised_range(first, last)
        assert 0 <= there <= back <= len(tokens)


@given(any_text)
def test_what_is_normalised_stays_as_it_is(text: str) -> None:
    said = normalise(text).text
    again = normalise(said)
    assert again.text == said
    assert again.offsets.tolist() == list(range(len(said)))
    assert all(map(again.is_plain, range(len(said))))


def test_every_code_point_by_itself_is_normalised_for_good() -> None:
    others = [*range(0xF900, 0x10000), *range(0x1D400, 0x1D800), *range(0x2F800, 0x2FA20)]
    for code in [*range(0x3400), *range(0x3400, 0xF900, 5), *others]:
        said = normalise(chr(code)).text
        assert normalise(said).text == said, hex(code)


@given(spoken_text, mixed, spoken_text)
def test_what_is_said_as_written_maps_to_itself(before: str, text: str, after: str) -> None:
    whole = before + text + after
    normal = normalise(whole)
    for offset in [*range(len(before)), *range(len(whole) - len(after), len(whole))]:
        start, end = normal.normalised_range(offset, offset + 1)
        assert normal.text[start:end] == whole[offset]
        assert normal.is_plain(start)


def test_offsets_lead_back_to_the_clients_text() -> None:
    text = "𠀀 在 3.5% 北京。大學"
    normal = normalise(text)
    assert normal.text == "𠀀在百分之三点五北京大学"
    start, end = normal.original_range(8, 12)
    assert text[start:end] == "北京。大學"
    assert (normal.utf16[start], normal.utf16[end]) == (start + 1, end + 1)
    start, end = normal.original_range(5, 6)
    assert text[start:end] == "3.5%", "a part of what is read out stands for the whole token"


def grown(span: ScoredSpan, text: NormalisedText) -> ScoredSpan:
    tokens = list(zip(text.offsets.tolist(), text.ends.tolist(), strict=True))
    own = set(tokens[span.start : span.end])
    places = [i for i, token in enumerate(tokens) if token in own]
    return ScoredSpan(places[0], places[-1] + 1, span.label, span.confidence)


@given(mixed, st.data())
def test_entities_cover_whole_tokens_and_do_not_cross_for_it(
    text: str, data: st.DataObject
) -> None:
    normal = normalise(text)
    found = []
    for start in range(len(normal.text)):
        if data.draw(st.booleans()):
            end = data.draw(st.integers(start + 1, min(len(normal.text), start + 4)))
            if all(s.end <= start or end <= s.end for s in found):
                found.append(ScoredSpan(start, end, "LOC", data.draw(st.floats(0, 1))))
    kept = whole_tokens(found, normal)
    candidates = [grown(s, normal) for s in found]
    assert set(kept) <= set(candidates)
    assert len({s.span for s in kept}) == len(kept)
    assert list(kept) == sorted(kept, key=lambda s: (s.start, -s.end))
    for one in kept:
        for other in kept:
            assert not one.start < other.start < one.end < other.end
    for lost in set(candidates) - set(kept):
        better = [s for s in kept if s.confidence >= lost.confidence]
        assert any(s.start < lost.end and lost.start < s.end for s in better)
