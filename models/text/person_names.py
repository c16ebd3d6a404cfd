"""Chinese persons' names: where a single character is hardly one.

A single character is a person where a surname stands for one (李某, 小李). Training shows that so
often that of 左小蕾 now and then 蕾 alone is found. But after a surname and 小 or 老 a character
is the last one of a name: in MSRA, Boson NER, AISHELL-NER and CNERTA's train80 one of the surnames
below, 小 or 老 and another character are annotated as one person 916 times, that other character
alone once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["SURNAMES", "ends_of_full_names"]

SURNAMES: Final = frozenset(
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘"
    "杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段左"
)
"""The most usual ones of one character."""

_FULL_NAME: Final = re.compile(f"[{''.join(sorted(SURNAMES))}][小老](?=.)")


def ends_of_full_names(text: str) -> Iterator[int]:
    """Characters that are hardly a person alone: after a surname and 小 or 老.

    Args:
        text: Normalised.
    """
    return (match.end() for match in _FULL_NAME.finditer(text))
