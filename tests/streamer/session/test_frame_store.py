from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.session.frame_store import FrameStore


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40)), max_size=12),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_frames_keep_their_numbers(steps: list[tuple[int, int]], start: int, end: int) -> None:
    store = FrameStore(width=1)
    kept: dict[int, float] = {}
    for count, drop in steps:
        numbers = np.arange(store.end, store.end + count)
        store.append(numbers[:, None].astype(np.float32))
        kept |= {int(n): float(n) for n in numbers}
        store.drop_before(drop)
        kept = {n: v for n, v in kept.items() if n >= drop or n >= store.end}
    expected = [v for n, v in sorted(kept.items()) if start <= n < end]
    window = store.window(start, end)
    assert window.shape == (len(expected), 1)
    assert window[:, 0].tolist() == expected
    assert store.end - store.first == len(kept)
