"""Pinyin syllables in the form used throughout: lower case, ``ü`` as ``v``, tone digit 1 to 5.

``zhang3`` has initial ``zh``, final ``ang``, tone 3; 5 is the neutral tone. The initial and final
are told from the spelling (``yu`` and ``wu`` stand for finals without an initial).
"""

from __future__ import annotations

__all__ = ["syllable_parts"]

_INITIALS = (
    *("zh", "ch", "sh"),
    *("b", "p", "m", "f", "d", "t", "n", "l", "g", "k", "h"),
    *("j", "q", "x", "r", "z", "c", "s"),
)
# Spellings of finals that stand alone, and the finals they stand for.
_ALONE = {
    "yi": "i", "ya": "ia", "ye": "ie", "yao": "iao", "you": "iu", "yan": "ian", "yin": "in",
    "yang": "iang", "ying": "ing", "yong": "iong", "yo": "io", "wu": "u", "wa": "ua", "wo": "uo",
    "wai": "uai", "wei": "ui", "wan": "uan", "wen": "un", "wang": "uang", "weng": "ueng",
    "yu": "v", "yue": "ve", "yuan": "van", "yun": "vn",
}  # fmt: skip
_UMLAUT_AFTER = ("j", "q", "x")
_BUZZED = ("zh", "ch", "sh", "r", "z", "c", "s")


def syllable_parts(syllable: str) -> tuple[str, str, str]:
    """Initial, final and tone of a syllable such as ``zhang3``.

    Anything that is not such a syllable has itself as its final, no initial and no tone.
    """
    if len(syllable) < 2 or syllable[-1] not in "12345" or not syllable[:-1].isascii():
        return ("", syllable, "")
    spelling, tone = syllable[:-1], syllable[-1]
    if spelling in _ALONE:
        return ("", _ALONE[spelling], tone)
    initial = next((i for i in _INITIALS if spelling.startswith(i)), "")
    final = spelling[len(initial) :]
    if initial in _UMLAUT_AFTER and final.startswith("u"):
        final = "v" + final[1:]
    if initial in _BUZZED and final == "i":
        final = "ih"  # the buzzed vowel of zhi and si is another sound than the i of ji
    return (initial, final, tone)
