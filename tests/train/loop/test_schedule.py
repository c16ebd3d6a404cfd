from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.train.batches.batch import BatchBuilder  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import Example  # noqa: E402
from cnerta.train.loop.schedule import BatchSchedule  # noqa: E402
from cnerta.train.recipe import Stage  # noqa: E402

BUILDER = BatchBuilder(Vocabulary.build("abcdef"), LabelScheme.flat(["LOC"]), AudioCache(), None)


def plan_of(sizes: list[int]) -> list[list[tuple[Example, ...]]]:
    """Batches of text-only clips, each with a text of its own."""
    return [[(Example("abc" * b + "d" * r, ()),) for r in range(n)] for b, n in enumerate(sizes, 1)]


def schedule(sizes: list[int], accumulate: int, process: int, processes: int) -> BatchSchedule:
    stage = Stage(
        name="s", task="entities", train=[], dev=[], epochs=1,
        accumulate=accumulate, drop_characters=0.5,
    )  # fmt: skip
    return BatchSchedule(
        plan_of(sizes), stage, BUILDER, (0, 0, 0), (4, 24), process=process, processes=processes
    )


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=7),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_each_utterance_is_computed_once_in_its_step(
    sizes: list[int], accumulate: int, processes: int, first: int
) -> None:
    plan = plan_of(sizes)
    schedules = [schedule(sizes, accumulate, p, processes) for p in range(processes)]
    (steps,) = {len(f) for f in schedules}
    runs = [list(f.steps(first)) for f in schedules]
    assert all(len(run) == max(0, steps - first) for run in runs), "everybody takes every step"
    for step in range(first, steps):
        batches = plan[step * accumulate : (step + 1) * accumulate]
        whole = sorted(c[0].text for batch in batches for c in batch)
        computed = [c[0].text for run in runs for p in run[step - first] for c in p.clips]
        assert sorted(computed) == whole
        for run in runs:
            for part in run[step - first]:
                assert len(part.batch.counts) == len(part.clips) > 0


def test_full_context_has_no_chunks() -> None:
    stage = Stage(name="t", task="entities", train=[], dev=[], epochs=1)
    whole = BatchSchedule(plan_of([2]), stage, BUILDER, (0, 0, 0), None)
    assert [part.chunk for part in next(whole.steps(0))] == [None]


def test_what_is_drawn_for_an_utterance_does_not_depend_on_who_computes_it() -> None:
    (whole,) = next(schedule([5], 1, 0, 1).steps(0))
    hidden = {
        len(c[0].text): row for c, row in zip(whole.clips, whole.batch.characters, strict=True)
    }
    shares = [next(schedule([5], 1, p, 3).steps(0)) for p in range(3)]
    for (share,) in shares:
        assert share.chunk == whole.chunk
        for clip, row in zip(share.clips, share.batch.characters, strict=True):
            n = len(clip[0].text)
            assert row[:n].tolist() == hidden[n][:n].tolist()
    assert len({s[0].seed for s in shares}) == 3, "else dropout would repeat itself"
    assert shares[0][0].seed == whole.seed
    drawn = np.concatenate([r.numpy() for r in hidden.values()])
    assert 0 < (drawn == 1).sum() < len(drawn), "else nothing was drawn"


def test_batches_draw_apart_and_the_same_again() -> None:
    first, second = (list(schedule([3, 3], 1, 0, 1).steps(0)) for _ in range(2))
    assert [[p.seed for p in s] for s in first] == [[p.seed for p in s] for s in second]
    assert first[0][0].seed != first[1][0].seed
    resumed = list(schedule([3, 3], 1, 0, 1).steps(1))
    assert resumed[0][0].seed == first[1][0].seed
