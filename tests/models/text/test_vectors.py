from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnerta.models.errors import ConfigError
from cnerta.models.text.vectors import read_vectors, vector_characters

ROWS = {"南": 2, "长江": 3, "b": 5, "无": 7}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.vec"


@pytest.mark.parametrize("header", ["", "6 3\n"])
def test_wanted_vectors_are_read_with_and_without_a_header(path: Path, header: str) -> None:
    lines = "</s> 9 9 9\n长江 1 -2.5 3e-2 \nＢ 4 5 6\nb 7 7 7\n京 8 8 8\n南\t0 0 1\n"
    path.write_text(header + lines, encoding="utf-8")
    rows, vectors = read_vectors(path, ROWS, 3)
    # Of a letter's two widths the first counts.
    assert rows.tolist() == [3, 5, 2]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[1, -2.5, 0.03], [4, 5, 6], [0, 0, 1]])
    assert set(vector_characters(path)) == set("b京南")


def test_what_does_not_fit_is_told(path: Path) -> None:
    path.write_text("2 4\n南 1 2 3 4\n长江 1 2 3 4\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"vectors of 3 numbers in .*some\.vec.* got 4 for '南'"):
        read_vectors(path, ROWS, 3)
    path.write_text("南 1 x 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected numbers after '南'"):
        read_vectors(path, ROWS, 3)
    path.write_text("海 1 2 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"some of 4 words .* got none"):
        read_vectors(path, ROWS, 3)
    with pytest.raises(ConfigError, match="expected readable vectors"):
        vector_characters(path.parent / "gone")
