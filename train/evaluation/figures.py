"""What all pictures of reports share: matplotlib without a display, and colours."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["LABEL_COLOURS", "pyplot"]

LABEL_COLOURS: Final = {"flat": "#4477aa", "nested": "#cc6677"}
"""By kind of labels."""


def pyplot() -> Any:
    """Matplotlib without a display; it takes a second to import, so it is when it is needed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt
