"""What the page's files hold: little, nothing foreign, and colours that can be told apart."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from cnerta.models.label_colours import label_colour

from .paths import PAGE

FILES = sorted(path for path in PAGE.rglob("*") if path.suffix in {".js", ".css", ".html"})
STYLE = (PAGE / "style.css").read_text(encoding="utf-8")
LABELS = ("PER", "LOC", "ORG")
BIGGEST_BYTES = 150_000


def test_the_page_is_light() -> None:
    assert sum(path.stat().st_size for path in FILES) <= BIGGEST_BYTES


def test_no_other_host_is_asked_for_anything() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        hosts = {host.rstrip(".") for host in re.findall(r"(?:https?|wss?)://([\w.-]+)", text)}
        # Names of XML vocabularies, and examples in comments and explanations.
        assert hosts <= {"www.w3.org", "localhost", "127.0.0.1"}, path


def test_nothing_is_inline() -> None:
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)


def test_no_text_becomes_markup() -> None:
    for path in PAGE.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text
        )


def test_every_text_is_in_both_languages_and_used() -> None:
    told = (PAGE / "app" / "text.js").read_text(encoding="utf-8")
    texts = dict.fromkeys(re.findall(r"(\w+): \[\"", told))
    pairs = re.findall(r"(\w+): \[\"((?:[^\"\\]|\\.)+)\", \"((?:[^\"\\]|\\.)+)\"\]", told)
    assert [key for key, _, _ in pairs] == list(texts)
    for key, english, chinese in pairs:
        assert re.search(r"[\u4e00-\u9fff]", chinese), key
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), key
    others = "\n".join(path.read_text(encoding="utf-8") for path in FILES if path.name != "text.js")
    made_by_the_demo = {"bridge", "mayor"}  # its recordings' names
    unused = {key for key in texts if not re.search(rf"\b{key}\b", others)}
    assert unused == made_by_the_demo
    asked = re.findall(r'data-text="(\w+)"|\bt\("(\w+)"', others)
    missing = {key for pair in asked for key in pair if key} - set(texts)
    assert not missing


# --- colours --------------------------------------------------------------------------------------


def variables(selector: str) -> dict[str, str]:
    (block,) = re.findall("^" + re.escape(selector) + r" \{([^}]*)\}", STYLE, re.M)
    return dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{3,6})\b", block))


DARK = variables(":root")
LIGHT = DARK | variables(':root[data-theme="light"]')
HIGH = variables(':root[data-contrast="on"]')
THEMES: Mapping[str, dict[str, str]] = {
    "dark": DARK,
    "light": LIGHT,
    "dark, high contrast": DARK | HIGH,
    "light, high contrast": LIGHT
    | HIGH
    | variables(':root[data-contrast="on"][data-theme="light"]'),
}


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """By WCAG 2.2: 1 to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_letters_and_marks_stand_out(theme: str) -> None:
    colours = THEMES[theme]
    least = 7.0 if "high" in theme else 4.5
    for ground in ("ground", "panel"):
        for ink in ("text", "soft", "bad", "doubt"):
            needed = least if ink in ("text", "soft") else 4.5
            assert contrast(colours[ink], colours[ground]) >= needed, (ink, ground)
        for mark in (*LABELS, "OTHER", "line"):
            assert contrast(colours[mark], colours[ground]) >= 3, (mark, ground)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5


def test_types_have_the_colours_of_the_project() -> None:
    for label in LABELS:
        assert DARK[label] == label_colour(label).on_dark
        assert LIGHT[label] == label_colour(label).on_paper
    exports = (PAGE / "app" / "exports.js").read_text(encoding="utf-8")
    told = dict(re.findall(r'(\w+): "(#[0-9a-f]{6})"', exports))
    assert told == {label: label_colour(label).on_dark for label in LABELS}
