from __future__ import annotations

import re

import pytest
from rich.color import Color

from cnerta.models.label_colours import label_colour


@pytest.mark.parametrize("label", ["PER", "LOC", "ORG", "GPE", "作品", ""])
def test_every_type_has_a_colour_for_every_ground(label: str) -> None:
    colour = label_colour(label)
    assert Color.parse(colour.sixteen).number is not None
    for value in (colour.block, colour.on_dark, colour.on_paper):
        assert re.fullmatch("#[0-9a-f]{6}", value)


def test_the_usual_types_differ_on_every_ground() -> None:
    colours = [label_colour(label) for label in ("PER", "LOC", "ORG", "GPE")]
    for ground in ("block", "sixteen", "on_dark", "on_paper"):
        assert len({getattr(colour, ground) for colour in colours}) == 4
