"""The clock-skew detector alone: what it finds among noise and odd utterances."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.session.clock_skew import ClockSkew, Offsets

SLACK_MS = 200
NOISE_MS = 100
skews = st.integers(-5_000, 5_000)


@st.composite
def utterances(draw: st.DrawFn, skew_ms: int) -> list[Offsets]:
    """Twenty of one constant skew; of any five in a row at most one is found elsewhere."""
    noise = st.integers(-NOISE_MS, NOISE_MS)
    silence = st.integers(0, 1_500)
    found = []
    strange = -5
    for number in range(20):
        heard = 10_000 * number
        if number - strange >= 5 and draw(st.booleans()):
            strange = number
            heard += draw(st.integers(-4_000, 4_000))
        start = 10_000 * number - skew_ms
        padding = draw(silence), draw(silence)
        given = start - padding[0], start + 2_000 + padding[1]
        found.append(Offsets.measure(given, (heard + draw(noise), heard + 2_000 + draw(noise))))
    return found


def follow(found: list[Offsets], skew: ClockSkew | None = None) -> list[ClockSkew]:
    states = [skew or ClockSkew(SLACK_MS)]
    for measured in found:
        states.append(states[-1].after(measured))
    return states


def tight(skew_ms: int, noise: list[int]) -> list[Offsets]:
    """Utterances whose given times are just those of the speech, but for noise."""
    return [Offsets(skew_ms + min(n, 0), skew_ms + max(n, 0)) for n in noise]


@given(st.data(), skews)
def test_any_constant_skew_is_recovered(data: st.DataObject, skew_ms: int) -> None:
    """Within five utterances, to what the window's slack makes up for, whatever is odd."""
    found = data.draw(utterances(skew_ms))
    states = follow(found)[5:]
    held = [
        sum(m.allows(state.offset_ms, SLACK_MS + NOISE_MS) for m in state.recent)
        for state in states
    ]
    assert min(held) >= 2
    assert sum(count >= 3 for count in held) >= len(held) - 3, "it falls behind for a moment only"


@given(skews, st.lists(st.integers(-NOISE_MS, NOISE_MS), min_size=3, max_size=20))
def test_tight_times_tell_the_skew_exactly(skew_ms: int, noise: list[int]) -> None:
    for state in follow(tight(skew_ms, noise))[3:]:
        if abs(skew_ms) > SLACK_MS + NOISE_MS:
            assert abs(state.offset_ms - skew_ms) <= SLACK_MS - NOISE_MS // 2
        else:
            assert abs(state.offset_ms - skew_ms) <= SLACK_MS + NOISE_MS


@given(
    st.integers(-NOISE_MS, NOISE_MS),
    st.lists(st.integers(-NOISE_MS, NOISE_MS), max_size=30),
    st.integers(0, 1_500),
)
def test_what_the_slack_makes_up_for_is_left_alone(
    skew_ms: int, noise: list[int], padding_ms: int
) -> None:
    found = [Offsets(m.least - padding_ms, m.most + padding_ms) for m in tight(skew_ms, noise)]
    assert {state.offset_ms for state in follow(found)} == {0}


@given(skews, st.lists(st.integers(-NOISE_MS, NOISE_MS), min_size=10, max_size=60))
def test_it_does_not_oscillate(skew_ms: int, noise: list[int]) -> None:
    offsets = [state.offset_ms for state in follow(tight(skew_ms, noise))]
    changes = sum(a != b for a, b in pairwise(offsets))
    assert changes <= 1


@given(skews, st.integers(-60_000, 60_000))
def test_one_odd_utterance_changes_nothing(skew_ms: int, elsewhere: int) -> None:
    (*_, settled) = follow(tight(skew_ms, [0] * 5))
    for found in follow([Offsets(elsewhere, elsewhere), *tight(skew_ms, [0] * 5)], settled):
        assert found.offset_ms == settled.offset_ms


def test_two_utterances_are_not_enough() -> None:
    states = follow(tight(3_000, [0, 0, 0]))
    assert [state.offset_ms for state in states] == [0, 0, 0, 3_000]
    assert [state.is_settled for state in states] == [False, False, False, True]


def test_times_that_are_right_settle_too() -> None:
    states = follow(tight(0, [0, 0, 0]))
    assert [state.is_settled for state in states] == [False, False, False, True]


@given(skews, st.integers(-3_600_000, 3_600_000), st.integers(0, 8))
def test_a_change_for_good_is_followed_after_three(before: int, after: int, count: int) -> None:
    (*_, settled) = follow(tight(before, [0] * count))
    (*_, moved) = follow(tight(after, [0] * 3), settled)
    assert abs(moved.offset_ms - after) <= SLACK_MS


def test_odd_utterances_that_agree_by_chance_do_not_move_a_settled_offset() -> None:
    right, odd = Offsets(-300, 200), Offsets(-3_400, -2_900)
    found = [right, right, *[right, odd] * 5]
    assert {state.offset_ms for state in follow(found)} == {0}


def test_an_offset_that_only_the_padded_utterances_allow_is_left() -> None:
    """Every other one would be looked for in the wrong place, for ever."""
    padded, exact = Offsets(-1_200, 100), Offsets(-550, -500)
    offsets = [state.offset_ms for state in follow([*[padded] * 3, *[exact, padded] * 6])]
    assert offsets[5] == 0, "two of five are no majority"
    assert abs(offsets[-1] + 525) <= SLACK_MS
    assert len(set(offsets)) == 2


def test_utterances_that_contradict_each_other_say_nothing() -> None:
    found = [Offsets(x, x) for x in (3_000, -2_000, 700, -900, 4_100, 1_700)]
    assert {state.offset_ms for state in follow(found)} == {0}


def test_a_given_time_shorter_than_the_speech_is_no_skew() -> None:
    measured = Offsets.measure((1_000, 2_000), (500, 2_500))
    assert measured == Offsets(-500, 500)
    assert measured.allows(0, 0)
