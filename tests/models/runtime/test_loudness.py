from __future__ import annotations

import numpy as np
import pytest

from cnerta.models.runtime.loudness import SILENCE_DB, power_db


def test_levels_of_known_powers() -> None:
    powers = np.array([1.0, 0.01, 1e-12, 0.0])
    assert power_db(powers).tolist() == pytest.approx([0.0, -20.0, -117.0, SILENCE_DB], abs=0.02)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_type_is_kept(kind: type) -> None:
    assert power_db(np.ones((2, 3), kind)).dtype == kind
    assert power_db(np.ones((2, 3), kind)).shape == (2, 3)
