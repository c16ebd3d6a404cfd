from __future__ import annotations

from pathlib import Path

import pytest

from cnerta.models.runtime.bundle import default_bundle_path, find_bundle, load_bundle


def test_bundles_that_come_along_go_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundle(None) == find_bundle(Path("fast")) == default_bundle_path()
    names = {load_bundle(find_bundle(Path(n))).name for n in ("fast", "accurate")}
    assert names == {"cnerta-fast", "cnerta-accurate"}


def test_a_folder_of_ones_own_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "accurate").mkdir()
    assert find_bundle(Path("accurate")) == Path("accurate")
    assert find_bundle(Path("fastest")) == Path("fastest")
