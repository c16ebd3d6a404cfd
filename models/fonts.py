"""A font for pictures with Chinese characters in them."""

from __future__ import annotations

from functools import cache

__all__ = ["find_cjk_font"]

# A character that any font for Chinese has, simplified or traditional.
_PROBE = "的"
# A code point that is no character: only a font with a box for everything has it.
_UNASSIGNED = 0x0378


@cache
def find_cjk_font() -> str | None:
    """Name of a font on this system that has Chinese characters; None if there is none.

    Needs matplotlib, which names fonts in this way.
    """
    from matplotlib import font_manager, ft2font

    for entry in font_manager.fontManager.ttflist:
        try:
            font = ft2font.FT2Font(entry.fname)
            # "Last Resort", which comes with matplotlib, has every character, as the same box.
            if font.get_char_index(ord(_PROBE)) and not font.get_char_index(_UNASSIGNED):
                return str(entry.name)
        except (OSError, RuntimeError):
            continue  # a font that matplotlib lists and cannot open
    return None
