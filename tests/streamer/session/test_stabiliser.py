from __future__ import annotations

from dataclasses import replace

from cnerta.streamer.session.stabiliser import Evidence, StabiliserOptions, is_stable

OPTIONS = StabiliserOptions(
    max_delay_ms=700, agreeing_revisions=2, edge_characters=2, min_confidence=0.6
)
ENOUGH = Evidence(agreements=2, edge_distance=2, confidence=0.6, age_ms=0)


def test_agreement_distance_and_confidence_together_make_an_entity_stable() -> None:
    assert is_stable(ENOUGH, OPTIONS)
    assert not is_stable(replace(ENOUGH, agreements=1), OPTIONS)
    assert not is_stable(replace(ENOUGH, edge_distance=1), OPTIONS)
    assert not is_stable(replace(ENOUGH, confidence=0.59), OPTIONS)


def test_time_alone_makes_an_entity_stable() -> None:
    doubtful = Evidence(agreements=1, edge_distance=0, confidence=0.1, age_ms=699)
    assert not is_stable(doubtful, OPTIONS)
    assert is_stable(replace(doubtful, age_ms=700), OPTIONS)
    assert is_stable(replace(doubtful, age_ms=0), replace(OPTIONS, max_delay_ms=0))
