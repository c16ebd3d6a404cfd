from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sphinx")

from .api_pages import PACKAGES, build


def test_the_pages_have_every_public_name_and_no_broken_reference(tmp_path: Path) -> None:
    assert build(tmp_path) == []
    for package in PACKAGES:
        page = (tmp_path / f"{package}.html").read_text(encoding="utf-8")
        for name in importlib.import_module(package).__all__:
            assert f'id="{package}.{name}"' in page, f"{package}.{name}"


@pytest.mark.parametrize(
    ("docstring", "said"),
    [
        ("See :func:`cnerta.models.no_such`.", "no_such"),
        ("See :class:`cnerta.models.Gone`.", "Gone"),
        ("See :meth:`nowhere`.", "nowhere"),
        ("An unclosed *emphasis.", "Inline emphasis"),
        ("See :func:`cnerta.models.normalise` and :meth:`there`, ``code`` and `code`.", ""),
    ],
)
def test_a_broken_reference_is_noticed(
    docstring: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("made_up", "A package.")
    thing = type("Thing", (), {"__doc__": docstring, "__module__": "made_up", "there": len})
    module.__dict__.update(Thing=thing, __all__=["Thing"])
    monkeypatch.setitem(sys.modules, "made_up", module)
    warnings = build(tmp_path, ("made_up",))
    assert bool(warnings) == bool(said)
    assert said in "".join(warnings)
