"""The measures of the recogniser benchmark, by hand and against a plain definition."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

FILE = Path(__file__).parent / "benchmarks" / "asr.py"
spec = importlib.util.spec_from_file_location("asr_benchmark", FILE)
assert spec is not None
assert spec.loader is not None
asr = importlib.util.module_from_spec(spec)
sys.modules["asr_benchmark"] = asr
spec.loader.exec_module(asr)


def plain_distance(one: str, other: str) -> int:
    @cache
    def between(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = one[i - 1] == other[j - 1]
        return min(between(i - 1, j) + 1, between(i, j - 1) + 1, between(i - 1, j - 1) + (not same))

    return between(len(one), len(other))


@given(st.text("一二三", max_size=8), st.text("一二三", max_size=8))
def test_edit_distance(one: str, other: str) -> None:
    assert asr.edit_distance(one, other) == plain_distance(one, other)


def test_scores_by_hand() -> None:
    found = [Counter({("LOC", "北京"): 2, ("PER", "江大桥"): 1}), Counter({("LOC", "长江"): 1})]
    wanted = [Counter({("LOC", "北京"): 1, ("ORG", "北京大学"): 1}), Counter({("LOC", "长江"): 1})]
    score = asr.Score.of(found, wanted)
    assert (score.right, score.found, score.wanted) == (2, 4, 3)
    assert str(score) == "57.1 (50 / 67)"
    assert asr.as_written(wanted, ["他在北京的大学", "长江"]) == "67 % of 3"
