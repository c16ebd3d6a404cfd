"""A small made-up domain to try fine-tuning on: sentences of a new kind, and of an everyday kind.

The new kind is talk among crews of spaceships. Its names were made up here and are like no names of
news: 青岚站 is a place, 墨翎航运 an organisation, 绯璃 a person. No name and no frame of a sentence
is in two splits, so what is scored on one split was not learned by heart from another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Final, Literal

from cnerta.models.runtime.labels import Span

__all__ = ["InventedSentence", "InventedSplit", "everyday_sentences", "invented_sentences"]

InventedSplit = Literal["train", "dev", "test"]

_FIRST: Final = "赤青墨银霜云星岚玄碧曜朔苍琉绯澜"
_SECOND: Final = "瑶舟桥砂穹翎渊珀烬鲸梭岬漪铎蘅璃"
_PLACES: Final = ("港", "站", "环", "湾区", "矿带", "船坞")
_COMPANIES: Final = ("航运", "重工", "测绘社", "引擎", "救援队", "联合体")
# {l} and {m} are places, {o} and {c} organisations, {p} and {q} persons.
_FRAMES: Final[dict[InventedSplit, tuple[str, ...]]] = {
    "train": (
        "{o}的补给船今晚停靠{l}",
        "{l}的闸门已经关闭",
        "{p}说{o}拖欠了三个月工资",
        "从{l}到{m}要飞十七天",
        "{p}在{l}接到了新的订单",
        "{o}准备在{l}扩建仓库",
        "昨天{p}和{q}一起检修了推进器",
        "请{p}马上回到驾驶舱",
        "{l}附近的小行星偏离了轨道",
        "{o}向{c}出售了两艘旧船",
        "轮机长{p}负责点火",
        "我们的氧气还能用九天",
        "货舱里只剩下备用零件",
        "{p}第一次见到{l}的日出",
        "听说{o}正在招人",
        "导航员把航线改向{m}",
    ),
    "dev": (
        "{p}把飞船卖给了{o}",
        "{l}收到了一个求救信号",
        "明天{o}的船队离开{l}",
        "领航员{p}请求减速",
        "引擎温度恢复正常",
        "{p}打算去{m}找{q}",
    ),
    "test": (
        "{o}宣布关闭{l}的办事处",
        "是{p}发现了燃料泄漏",
        "{p}欠{q}一顿饭",
        "我们在{l}等{o}的拖船",
        "{c}和{o}争夺{l}的航线",
        "没有人知道{p}去了{m}",
        "舱门的密码又换了",
        "{l}的信号断断续续",
        "大副{p}替{o}送来了合同",
    ),
}
_TYPES: Final = {"l": "LOC", "m": "LOC", "o": "ORG", "c": "ORG", "p": "PER", "q": "PER"}

_CITIES: Final = (
    "北京", "上海", "广州", "深圳", "杭州", "南京", "武汉", "成都", "重庆", "西安", "天津", "苏州",
    "长沙", "郑州", "青岛", "大连", "厦门", "宁波", "合肥", "福州", "济南", "昆明", "沈阳", "南昌",
)  # fmt: skip
_SURNAMES: Final = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高"
_GIVEN: Final = "伟芳娜敏静丽强磊洋艳勇军杰娟涛明超霞平刚"
# {c} is a city, {u} its university, {p} and {q} are persons.
_EVERYDAY: Final = (
    "记者昨天在{c}采访了{p}",
    "{p}毕业于{u}",
    "{c}市今年的房价比去年低",
    "{p}和{q}将在{c}的比赛中相遇",
    "{u}的学生参加了这次活动",
    "去年有三万人离开{c}",
    "今天的比赛因为下雨推迟了",
    "{p}表示将继续努力",
    "{c}的气温明天降到零度",
    "{u}教授{p}认为价格还会上涨",
    "{p}从{c}赶回家里过年",
    "专家建议市民减少外出",
    "在{c}工作的{p}拿到了冠军",
    "这家公司去年的收入下降了两成",
)


@dataclass(frozen=True, slots=True)
class InventedSentence:
    """A sentence.

    Attributes:
        text: Without punctuation, as speech is transcribed.
        entities: Outer before inner ones.
    """

    text: str
    entities: tuple[Span, ...]


def invented_sentences(
    split: InventedSplit, count: int, seed: int = 0
) -> tuple[InventedSentence, ...]:
    """Sentences of the new kind; none twice.

    Args:
        split: Names and frames are its own.
        count: How many.
        seed: Decides which.
    """
    rng = random.Random(f"{seed} {split}")
    # A name is a pair of characters. Of four pairs two are training's.
    pairs = [a + b for a in _FIRST for b in _SECOND]
    random.Random("names").shuffle(pairs)
    start = {"train": (0, 1), "dev": (2,), "test": (3,)}[split]
    names = [pair for i, pair in enumerate(pairs) if i % 4 in start]
    endings = {"LOC": _PLACES, "ORG": _COMPANIES, "PER": ("",)}

    def draw() -> InventedSentence:
        chosen = rng.sample(names, len(_TYPES))
        values = {
            field: ((name + rng.choice(endings[label]), label),)
            for (field, label), name in zip(_TYPES.items(), chosen, strict=True)
        }
        return _filled(rng.choice(_FRAMES[split]), values)

    return _distinct(draw, count)


def everyday_sentences(
    count: int, seed: int = 0, without: Sequence[InventedSentence] = ()
) -> tuple[InventedSentence, ...]:
    """Sentences of a kind that the shipped models know: cities, universities, persons.

    They are annotated as CNERTA is: a university holds its city, 某某市 is one place.

    Args:
        count: How many.
        seed: Decides which.
        without: None of these.
    """
    rng = random.Random(f"{seed} everyday")
    unwanted = {s.text for s in without}

    def draw() -> InventedSentence:
        city, other = rng.sample(_CITIES, 2)
        persons = [rng.choice(_SURNAMES) + rng.choice(_GIVEN) for _ in range(2)]
        frame = rng.choice(_EVERYDAY)
        in_name = "{c}市" in frame
        values = {
            "c": ((city + "市" * in_name, "LOC"),),
            "u": ((other + "大学", "ORG"), (other, "LOC")),
            "p": ((persons[0], "PER"),),
            "q": ((persons[1], "PER"),),
        }
        return _filled(frame.replace("{c}市", "{c}"), values)

    return _distinct(draw, count, unwanted)


def _distinct(
    draw: Callable[[], InventedSentence], count: int, unwanted: set[str] | None = None
) -> tuple[InventedSentence, ...]:
    """So many sentences, none of them twice but those without a name, which are few."""
    seen = set(unwanted or ())
    found: list[InventedSentence] = []
    while len(found) < count:
        sentence = draw()
        if sentence.text not in seen or not sentence.entities:
            seen.add(sentence.text)
            found.append(sentence)
    return tuple(found)


_Names = Sequence[tuple[str, str]]


def _filled(frame: str, values: Mapping[str, _Names]) -> InventedSentence:
    """A frame with names in the places of its fields, and where they are."""
    pieces, spans = "", []
    for literal, field, _, _ in Formatter().parse(frame):
        pieces += literal
        if field:
            for name, label in values[field]:
                spans.append(Span(len(pieces), len(pieces) + len(name), label))
            pieces += values[field][0][0]
    return InventedSentence(pieces, tuple(spans))
