from __future__ import annotations

import numpy as np
import pytest

from cnerta.models.runtime.decoding import CrfDecoder, CrfParameters
from cnerta.models.runtime.labels import LabelScheme, Span
from cnerta.models.text.person_names import SURNAMES, ends_of_full_names


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("专家左小蕾认为", [4]),
        ("许老三和王小二", [2, 6]),
        ("左小", []),
        ("小李和老王", []),
        ("白领小郑", []),
        ("", []),
    ],
)
def test_the_third_character_of_a_full_name(text: str, places: list[int]) -> None:
    assert list(ends_of_full_names(text)) == places


def test_surnames_are_single_characters() -> None:
    assert all(len(s) == 1 for s in SURNAMES)
    assert not SURNAMES & set("小老")


def decoder(types: str) -> CrfDecoder:
    scheme = LabelScheme.flat(types.split())
    size = len(scheme)
    zeros = np.zeros(size, np.float32)
    return CrfDecoder(scheme, CrfParameters(zeros, np.zeros((size, size), np.float32), zeros))


def scores(scheme: LabelScheme, tags: dict[int, dict[str, float]]) -> np.ndarray:
    emissions = np.zeros((5, len(scheme)), np.float32)
    emissions[:, 0] = 3.0
    for place, raised in tags.items():
        for tag, score in raised.items():
            emissions[place, scheme.tags.index(tag)] = score
    return emissions


def test_the_decoder_takes_the_whole_name_in_its_place() -> None:
    crf = decoder("LOC PER")
    # 左小蕾 is nearly as probable as 蕾 alone.
    emissions = scores(
        crf.scheme, {0: {"B-PER": 3.0}, 1: {"I-PER": 3.0}, 2: {"L-PER": 4.0, "U-PER": 5.0}}
    )
    (alone,) = crf.decode(emissions[None], [5])
    assert [s.span for s in alone] == [Span(2, 3, "PER")]
    (whole,) = crf.decode(crf.with_full_names(emissions, "左小蕾认为")[None], [5])
    assert [s.span for s in whole] == [Span(0, 3, "PER")]
    assert crf.with_full_names(emissions, "是小蕾认为") is emissions
    # What is sure enough is still found.
    sure = scores(crf.scheme, {2: {"U-PER": 15.0}})
    (found,) = crf.decode(crf.with_full_names(sure, "左小蕾认为")[None], [5])
    assert [s.span for s in found] == [Span(2, 3, "PER")]


def test_a_model_without_persons_has_nothing_to_lower() -> None:
    crf = decoder("LOC")
    emissions = scores(crf.scheme, {})
    assert crf.with_full_names(emissions, "左小蕾认为") is emissions
