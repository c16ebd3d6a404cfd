"""Pronunciations of training text, from pypinyin."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pypinyin import Style, lazy_pinyin, pinyin

__all__ = ["add_name_readings", "character_readings", "sentence_readings"]

# A reading rarer than this among a character's occurrences is taken for a mistake of the lookup.
_MIN_SHARE = 0.005

# How characters are read in names alone: surnames, then places. Looked up word by word they are
# read as anywhere else (曾 as céng), so that counting would never find these.
_NAMES = """
    曾zeng1 查zha1 解xie4 盖ge3 任ren2 应ying1 种chong2 过guo1 召shao4 占zhan1 纪ji3 折she2
    洗xian3 单shan4 仇qiu2 区ou1 朴piao2 乐yue4 葛ge3 华hua4 尉yu4 翟zhai2 员yun4 缪miao4
    盛sheng4 宁ning4 那na1 哈ha3 车che1 黑he4 秘bi4 重chong2 句gou1 撒sa4 相xiang4 令ling2
    繁po2 牟mu4 燕yan1 卜bu3 覃qin2 贾jia3 柏bai3 祭zhai4 訾zi1 适kuo4 於yu1 万mo4
    俟qi2 澹tan2 薄bo2 么yao1 干gan1 肖xiao1 石shi2 六lu4 蔚yu4 浚xun4 番pan1 埔pu3
    荥xing2 莘shen1 台tai1 丽li2 厦xia4 铅yan2 阿e1 洞tong2 泌bi4 渑mian3 犍qian2 济ji3
    歙she4 盱xu1 枞zong1 蚌beng4 柞zha4 会kuai4 朝zhao1 曲qu1 侯hou4 泷shuang1 冠guan4 并bing1
    堡bu3
"""
_IN_NAMES = {entry[0]: entry[1:] for entry in _NAMES.split()}


def sentence_readings(text: str) -> tuple[str, ...]:
    """The likely reading of each character, by words; the character itself if it has none."""
    # pypinyin hands runs of other characters to ``errors`` whole; one item for each is wanted.
    syllables = lazy_pinyin(
        text,
        style=Style.TONE3,
        neutral_tone_with_five=True,
        errors=list,  # type: ignore[arg-type]
    )
    assert len(syllables) == len(text), "one syllable a character"
    return tuple(syllables)


def character_readings(
    texts: Iterable[str], spoken: Iterable[tuple[str, tuple[str, ...]]], most: int
) -> dict[str, list[str]]:
    """Readings of each character, most frequent first.

    Args:
        texts: Training texts, read by words.
        spoken: Texts whose readings are known.
        most: Readings kept for a character.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    known = [(text, sentence_readings(text)) for text in texts]
    for text, readings in (*known, *spoken):
        for character, reading in zip(text, readings, strict=True):
            if reading != character:
                counts[character][reading] += 1
    for character, counter in counts.items():
        # A reading the dictionary lists but the texts never needed may still be spoken.
        listed = pinyin(character, style=Style.TONE3, heteronym=True, neutral_tone_with_five=True)
        counter[listed[0][0]] += 1
    usual = {
        character: [
            reading
            for reading, count in counter.most_common(most)
            if count >= _MIN_SHARE * counter.total()
        ]
        for character, counter in counts.items()
    }
    return add_name_readings(usual, most)


def add_name_readings(readings: Mapping[str, Sequence[str]], most: int) -> dict[str, list[str]]:
    """Readings of characters and those that they have only in names, last.

    Args:
        readings: Of each character, most frequent first.
        most: Readings kept for a character.
    """
    known = {character: list(found) for character, found in readings.items()}
    for character, name in _IN_NAMES.items():
        found = known.get(character)
        if found and name not in found:
            known[character] = [*found[: max(most - 1, 1)], name][:most]
    return known
