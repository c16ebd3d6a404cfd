"""Reference pages say what the code says."""

from __future__ import annotations

import json
import re
import shlex
from typing import get_args

import msgspec
import pytest
from prometheus_client import generate_latest

from cnerta.streamer.serving.metrics import ServerMetrics
from cnerta.streamer.wire.codec import decode_client, decode_server, encode
from cnerta.streamer.wire.errors import ErrorName
from cnerta.streamer.wire.examples import EXAMPLES
from cnerta.streamer.wire.messages import (
    CLIENT_MESSAGES,
    SERVER_MESSAGES,
    RetractReason,
    WarningName,
)
from cnerta.streamer.workers.front_metrics import FrontMetrics

from .meanings import MEANINGS
from .pages import ROOT, Block, Page, all_pages
from .reference import REFERENCE, REFERENCE_PAGES, options_of_commands


@pytest.mark.parametrize("name", REFERENCE_PAGES)
def test_a_page_made_from_the_code_is_up_to_date(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == REFERENCE_PAGES[name](), "make docs writes it anew"


def test_every_message_has_an_example_that_the_protocol_accepts() -> None:
    tags = [str(t.__struct_config__.tag) for t in (*CLIENT_MESSAGES, *SERVER_MESSAGES)]
    assert sorted(EXAMPLES) == sorted(tags)
    for message in EXAMPLES.values():
        decode = decode_client if isinstance(message, CLIENT_MESSAGES) else decode_server
        assert decode(encode(message)) == message


def test_examples_agree_with_their_own_texts() -> None:
    final = msgspec.to_builtins(EXAMPLES["utterance.final"])
    for part in (*final["entities"], *final["readings"]):
        assert final["text"][part["start"] : part["end"]] == part["text"]
    assert len(final["characters"]) == len(final["text"])


def test_no_meaning_is_left_over() -> None:
    page = REFERENCE_PAGES["messages.md"]()
    fields = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert not {name for name in MEANINGS if name.rpartition(".")[2] not in fields}
    assert not [name for name, meaning in MEANINGS.items() if "." in name and meaning not in page]


def test_messages_in_the_protocol_page_are_messages() -> None:
    """Those written whole are decoded as they stand."""
    client = {str(t.__struct_config__.tag) for t in CLIENT_MESSAGES}
    count = 0
    for block in Page(REFERENCE / "protocol.md").blocks:
        lines = block.code.splitlines() if block.language == "jsonl" else [block.code]
        for line in lines if block.language in ("json", "jsonl") else []:
            kind = json.loads(line).get("type")
            if kind is not None:
                (decode_client if kind in client else decode_server)(line)
                count += 1
    assert count


def test_the_documented_errors_and_warnings_are_those_there_are() -> None:
    page = Page(REFERENCE / "protocol.md").text
    _, _, errors = page.partition("## Errors")
    errors, _, warnings = errors.partition("## Warnings")
    documented = [
        (int(code), name)
        for code, names in re.findall(r"^\| (\d{4}) \| ([^|]*) \|", errors, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    ]
    assert sorted(documented) == sorted((error.code, error.wire_name) for error in ErrorName)
    assert re.findall(r"^\| `(\w+)` \|", warnings, re.MULTILINE) == list(get_args(WarningName))


def test_the_documented_reasons_of_retractions_are_those_there_are() -> None:
    _, _, reasons = Page(REFERENCE / "protocol.md").text.partition("## Why an entity is retracted")
    reasons, _, _ = reasons.partition("## Which audio")
    documented = re.findall(r"^\| `(\w+)` \|", reasons, re.MULTILINE)
    assert sorted(documented) == sorted(["reason", *get_args(RetractReason)])


def test_the_bundle_page_names_every_file_and_key_of_a_bundle() -> None:
    page = Page(REFERENCE / "bundle.md").text
    for bundle in (ROOT / "models" / "bundles").iterdir():
        manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        wanted = {path.name for path in bundle.iterdir()} | set(manifest)
        assert not {name for name in wanted if f"`{name}`" not in page}


def test_commands_in_documents_have_the_options_they_are_given() -> None:
    """Those that are only shown, too."""
    options = options_of_commands()
    shown = [(page, block) for page in all_pages() for block in page.blocks]
    unknown = {
        f"{page.name}:{block.line}": wrong
        for page, block in shown
        if block.language == "sh" and (wrong := wrong_options(block, options))
    }
    assert not unknown


def wrong_options(block: Block, options: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Commands of ours in a block, each with an option that it does not have."""
    wrong = []
    for line in block.code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&>")
        lexer.whitespace_split = True
        command = ""
        words = list(lexer)
        for word, following in zip(words, [*words[1:], ""][: len(words)], strict=True):
            script = word.rpartition("/")[2]
            if re.fullmatch(r"cnerta-\w+", script):
                # `cnerta-train RECIPE` is short for its command `train`.
                likely = (f"{script} {following}", f"{script} train", script)
                # Other things are called so, too, such as a cluster's secret.
                command = next((name for name in likely if name in options), "")
            elif set(word) <= set("|;&>"):
                command = ""
            elif command and word.startswith("--") and word not in options[command]:
                wrong.append((command, word))
    return wrong


def test_an_option_that_is_none_is_noticed() -> None:
    block = Block("sh", "", "x | cnerta-train check a --data-root b --speed 1 > c\n", 1)
    assert wrong_options(block, options_of_commands()) == [("cnerta-train check", "--speed")]


def test_operators_are_told_of_every_metric_and_of_no_other() -> None:
    metrics = ServerMetrics(name="x", device="x", count_sessions=lambda: 0)
    told = metrics.exposition() + generate_latest(FrontMetrics().registry)
    families = re.findall(r"^# TYPE (\w+)", told.decode(), re.MULTILINE)
    # Those of which nothing has happened yet have a family, too.
    ours = {name for name in families if re.match(r"cnerta_(?!model_info)(?!\w+_created$)", name)}
    named = re.findall(r"`(cnerta_\w+)`", Page(ROOT / "docs" / "how-to" / "operations.md").text)
    assert set(named) == ours


def test_every_benchmark_is_in_its_page() -> None:
    page = Page(ROOT / "docs" / "how-to" / "benchmark.md").text
    programs = [path.name for path in (ROOT / "tests" / "benchmarks").glob("*.py")]
    assert programs
    assert not [name for name in programs if f"`{name}`" not in page]
