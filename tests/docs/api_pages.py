"""The API pages: what the four packages offer, made by Sphinx from their docstrings.

`make api` writes them to build/api. They are strict: a reference to something that does not exist,
in the docstring of anything public or of one of its members, is a warning, and so is markup that
cannot be read. :func:`build` returns all of them.
"""

from __future__ import annotations

import importlib
import inspect
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

__all__ = ["PACKAGES", "build"]

PACKAGES: Final = ("cnerta.models", "cnerta.train", "cnerta.export", "cnerta.streamer")
ROOT: Final = Path(__file__).resolve().parents[2]
_OUR_ROLES: Final = frozenset({"func", "meth", "mod", "data", "attr"})
"""Roles that only a docstring uses: what annotations name is of the kinds ``class`` and ``obj``."""


def build(out: Path, packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """Write the pages.

    Args:
        out: Folder; made if missing.
        packages: Whose public names, those in ``__all__``, get a page.

    Returns:
        What is wrong with docstrings, a line each.
    """
    warnings = io.StringIO()
    # What Sphinx registers with docutils is taken back, so that a process can build twice.
    with docutils_namespace(), tempfile.TemporaryDirectory() as work:
        source = Path(work) / "source"
        source.mkdir()
        (source / "index.rst").write_text(_index(packages), encoding="utf-8")
        for package in packages:
            (source / f"{package}.rst").write_text(_page(package), encoding="utf-8")
        app = Sphinx(
            str(source),
            None,
            str(out),
            str(Path(work) / "doctrees"),
            "html",
            confoverrides={
                "project": "cnerta-stream",
                "extensions": ["sphinx.ext.autodoc", "sphinx.ext.napoleon"],
                "autodoc_member_order": "bysource",
                "autodoc_typehints_format": "short",
                "napoleon_use_ivar": True,
                "nitpicky": True,
                "default_role": "code",
                "html_theme": "alabaster",
                "html_copy_source": False,
            },
            status=None,
            warning=warnings,
        )
        app.connect("missing-reference", _resolve)
        app.build()
    return [line for line in warnings.getvalue().splitlines() if line.strip()]


def _index(packages: tuple[str, ...]) -> str:
    title = "cnerta-stream: the Python API"
    names = "\n".join(f"   {package}" for package in packages)
    return f"{title}\n{'=' * len(title)}\n\n.. toctree::\n\n{names}\n"


def _page(package: str) -> str:
    """What a package says of itself, then each of its names."""
    module = importlib.import_module(package)
    parts = [package, "=" * len(package), "", f".. automodule:: {package}", "   :no-members:", ""]
    for name in module.__all__:
        parts += _entry(package, name, getattr(module, name))
    return "\n".join(parts) + "\n"


def _entry(package: str, name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield from (f".. autoclass:: {package}.{name}", "   :members:", "   :show-inheritance:", "")
    elif inspect.isroutine(value):
        yield from (f".. autofunction:: {package}.{name}", "")
    else:
        yield from (f".. py:data:: {name}", f"   :module: {package}", "")
        yield from (f"   ``{value}``".replace("\n", " "), "")


def _resolve(_: Sphinx, __: Any, node: Any, shown: nodes.Element) -> nodes.Element | None:
    """What has no page is shown as code, if there is such a thing at all."""
    target, kind = str(node.get("reftarget", "")), node.get("reftype")
    if node.get("refdomain") != "py":
        return None
    if not target.startswith("cnerta") and kind not in _OUR_ROLES:
        return shown  # a type of another library, in an annotation
    context = (node.get("py:module") or "", node.get("py:class") or "")
    places = (target, ".".join((context[0], target)), ".".join((*context, target)))
    return shown if any(map(_exists, places)) else None


def _exists(dotted: str) -> bool:
    """Whether there is a module, or something in one, of this name."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            fields = getattr(found, "__annotations__", {})
            if part in fields and not hasattr(found, part):
                return part == parts[-1]
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "api"
    wrong = build(target)
    print(*wrong, f"{target / 'index.html'}", sep="\n")
    sys.exit(bool(wrong))
