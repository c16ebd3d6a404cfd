"""What is said where a text has figures: 2024年 is 二零二四年, 3.5% is 百分之三点五.

Recognisers write figures, speakers say words, and the model was trained on what is said: a figure
has no sound and no place in the alignment. So every token with figures in it is read out. The
reading is one way to say it, chosen by what stands around it and by what is usual in news speech
(AISHELL's transcripts: years and long codes figure by figure with 一 for 1, 两 before counted
things, 二百 but 两千). A speaker may have said it in another way; then the characters beside it
are still right.

Own code, because libraries that read out text do not say which character comes from where.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

__all__ = ["SpokenToken", "cardinal", "numeral", "spoken_tokens"]

_FIGURES: Final = "零一二三四五六七八九"
_LONGEST_CARDINAL: Final = 16
"""Figures of a number that is still counted; longer ones are told figure by figure."""

# Traditional characters beside the simplified ones: figures are read before the rest is converted.
_COUNTED: Final = frozenset("个個名位家人次天年块塊周週倍种種项項条條张張辆輛台臺座岁歲万萬千亿億")
_MEASURES: Final = _COUNTED | frozenset(
    "元美欧港日月号號米吨噸克斤里公平立秒分点點时時小届屆度株股票手层層度支只隻头頭所件套场場"
)
_DURATIONS: Final = frozenset("来來前后後内內间間期里裡裏多的以之历歷")
_CURRENCIES: Final = {"¥": "元", "$": "美元", "€": "欧元", "£": "英镑"}
_UNITS: Final = {
    "km/h": "公里每小时", "km²": "平方公里", "㎢": "平方公里", "m²": "平方米", "㎡": "平方米",
    "m³": "立方米", "㎥": "立方米", "km": "公里", "㎞": "公里", "cm": "厘米", "㎝": "厘米",
    "mm": "毫米", "㎜": "毫米", "kg": "公斤", "㎏": "公斤", "°c": "摄氏度", "℃": "摄氏度",
    "°f": "华氏度", "℉": "华氏度", "°": "度",
}  # fmt: skip

_KNOWN_CODES: Final = re.compile(r"11[0-9]|12[02]|315|100[0-9]{2}|12[135][0-9]{2}|95[0-9]{3}")
_NUMBER: Final = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)"
_UNIT: Final = "|".join(re.escape(u) + ("(?![a-z])" if u[-1].isalpha() else "") for u in _UNITS)
_TOKENS: Final = re.compile(
    rf"""
    (?P<keycap> \d\ufe0f?\u20e3 )
  | (?P<date> (?P<year>(?:19|20)\d\d)(?P<mark>[-/.])(?P<month>0?[1-9]|1[0-2])(?P=mark)
              (?P<day>[12]\d|3[01]|0?[1-9]) (?![\d/.-]\d|\d) )
  | (?P<phone> (?: 0\d{{2,3}}[- ]\d{{7,8}} | 1[3-9]\d[- ]\d{{4}}[- ]\d{{4}} | 1[3-9]\d{{9}}
                 | [48]00[- ]\d{{3}}[- ]?\d{{4}} | \d+(?:-\d+){{2,}} ) (?!\d) )
  | (?P<clock> (?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))? (?![\d:]) )
  | (?P<ratio> (?P<left>\d+):(?P<right>\d+) (?![\d:]) )
  | (?P<money> (?P<currency>[¥$€£])\ ?(?P<amount>{_NUMBER})(?P<scale>[百千万亿萬億]*)元? )
  | (?P<share> (?P<minus>(?<![\da-z%‰])-)?(?P<hundredths>{_NUMBER})\ ?(?P<of>[%‰]) )
  | (?P<dotted> \d+(?:\.\d+){{2,}} )
  | (?P<fraction> (?P<part>[1-9]\d*)/(?P<whole>[1-9]\d*) (?![\d/]) )
  | (?P<number> (?P<below>(?<![\da-z])-(?=[\d,.]+\ ?(?:[℃℉°度])))?
                (?P<value>{_NUMBER}) (?:\ ?(?P<unit>{_UNIT}))? )
  | (?P<to> (?<=[\d%‰℃元年月日号號点點分万亿萬億岁歲])[-~–—〜](?=[\d¥$€£]) )
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class SpokenToken:
    """Characters that are said in another way than they are written.

    Attributes:
        start: First code point.
        end: One past the last.
        spoken: What is said; nothing for what is a picture only.
    """

    start: int
    end: int
    spoken: str


def spoken_tokens(text: str) -> Iterator[SpokenToken]:
    """Every token of a text that has figures in it, in the order of the text.

    Args:
        text: With ASCII figures and half-width lower-case letters and marks.
    """
    for match in _TOKENS.finditer(text):
        yield SpokenToken(match.start(), match.end(), _spoken(match))


def cardinal(value: int) -> str:
    """A whole number as it is counted, below 10 ** 16: 2012 is 两千零一十二."""
    assert 0 <= value < 10**_LONGEST_CARDINAL, "expected a number that can be counted"
    said = _counted(value)
    if 10 <= value < 20 or 10**5 <= value < 2 * 10**5 or 10**9 <= value < 2 * 10**9:
        said = said.removeprefix("一")
    if said[0] == "二" and said[1:2] in ("千", "万", "亿"):
        said = "两" + said[1:]
    return said


def numeral(character: str) -> str | None:
    """How a numeral that is one character is said (Ⅳ, ③, ½); None if it stands for no number."""
    value = unicodedata.numeric(character, None)
    if value is None or value < 0:
        return None
    ratio = Fraction(value).limit_denominator(1000)
    if max(ratio.numerator, ratio.denominator) >= 10**_LONGEST_CARDINAL:
        return None
    if ratio.denominator == 1:
        return cardinal(ratio.numerator)
    return f"{cardinal(ratio.denominator)}分之{cardinal(ratio.numerator)}"


def _spoken(match: re.Match[str]) -> str:
    kind, text = match.lastgroup, match[0]
    if match["keycap"]:
        return ""
    if match["date"]:
        month, day = int(match["month"]), int(match["day"])
        return f"{_figures(match['year'])}年{cardinal(month)}月{cardinal(day)}日"
    if match["phone"] or match["dotted"]:
        return "".join(_figures(c) if c.isdigit() else "点" * (c == ".") for c in text)
    if match["clock"]:
        return _clock(int(match["hour"]), match["minute"], match["second"])
    if match["ratio"]:
        # At the end of unfinished text this is a time of day that lacks its last figure.
        between = "点" if match.end() == len(match.string) and len(match["right"]) == 1 else "比"
        return f"{_plain(match['left'])}{between}{_plain(match['right'])}"
    if match["money"]:
        amount = _plain(match["amount"], match["scale"])
        return f"{amount}{match['scale']}{_CURRENCIES[match['currency']]}"
    if match["share"]:
        sign, whole = "负" * bool(match["minus"]), "百" if match["of"] == "%" else "千"
        return f"{sign}{whole}分之{_plain(match['hundredths'])}"
    if match["fraction"]:
        part, whole = match["part"], match["whole"]
        if int(part) < int(whole) and len(whole) <= _LONGEST_CARDINAL:
            return f"{_plain(whole)}分之{_plain(part)}"
        return _plain(part) + _plain(whole)
    if match["to"]:
        return "到"
    assert kind is not None, "one of the alternatives has matched"
    sign, unit = "负" * bool(match["below"]), _UNITS.get(match["unit"] or "", "")
    return sign + _number(match, unit) + unit


def _number(match: re.Match[str], unit: str) -> str:
    """A number by itself, read as what stands around it says."""
    text, figures = match.string, match["value"]
    before = text[: match.start()].rstrip("- ")[-1:]
    after = (unit + text[match.end() :]).lstrip(" ")[:2]
    if not figures.isdigit():
        return _plain(figures, after)
    if before.isascii() and before.isalpha():
        return _plain(figures) if len(figures) < 3 else _figures(figures)
    if after[:1] == "年":
        return _figures(figures) if _is_year(figures, after[1:]) else _plain(figures, after)
    if after[:1] in ("后", "後") and re.fullmatch("[5-9]0|00", figures):
        return _figures(figures)
    if after[:1] not in _MEASURES and _is_code(figures):
        return _figures(figures)
    return _plain(figures, after)


def _is_year(figures: str, after: str) -> bool:
    """Whether figures before 年 name a year; else they count years."""
    if len(figures) == 4:
        return 1100 <= int(figures) < 2100
    if len(figures) != 2:
        return False
    if figures[0] == "0":
        return True
    return figures[1] != "0" and after[:1] not in _DURATIONS


def _is_code(figures: str) -> bool:
    """Whether figures that count nothing are told one by one: a year, an emergency number."""
    if len(figures) == 4:
        return figures[:2] in ("19", "20")
    if len(figures) >= 7:
        return not figures.endswith("000")
    return _KNOWN_CODES.fullmatch(figures) is not None


def _clock(hour: int, minute: str, second: str | None) -> str:
    said = ("两" if hour == 2 else cardinal(hour)) + "点"
    if minute != "00" or second:
        said += ("零" if minute[0] == "0" and minute != "00" else "") + cardinal(int(minute)) + "分"
    if second:
        said += ("零" if second[0] == "0" and second != "00" else "") + cardinal(int(second)) + "秒"
    return said


def _plain(number: str, after: str = "") -> str:
    """A number, with ``after`` as what follows it."""
    whole, point, rest = number.replace(",", "").partition(".")
    if point:
        return _whole(whole) + "点" + _figures(rest)
    if whole == "2" and after[:1] in _COUNTED:
        return "两"
    return _whole(whole)


def _whole(figures: str) -> str:
    if len(figures) > _LONGEST_CARDINAL or (len(figures) > 1 and figures[0] == "0"):
        return _figures(figures)
    return cardinal(int(figures))


def _figures(figures: str) -> str:
    return "".join(_FIGURES[int(f)] for f in figures)


def _counted(value: int) -> str:
    """A number with every 一 and without 两."""
    for size, name in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if value >= size:
            many, rest = divmod(value, size)
            said = _counted(many) + name
            if not rest:
                return said
            # A place that is empty is said, once.
            return said + ("零" if rest < size // 10 else "") + _counted(rest)
    return _FIGURES[value]
