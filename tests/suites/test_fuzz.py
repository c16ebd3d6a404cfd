"""The fuzzer in short; ``make fuzz`` is the whole of it."""

from __future__ import annotations

import json
import random

from hypothesis import example, given
from hypothesis import strategies as st

from .fuzz import SERVER_OPTIONS, fuzz
from .fuzz_decoder import check_decoding
from .fuzz_inputs import FAMILIES, boundary_messages, mutate, valid_message
from .server_process import ServerProcess


async def test_two_thousand_messages_end_nothing_without_a_name() -> None:
    with ServerProcess(SERVER_OPTIONS) as server:
        found = await fuzz(server, 2_000, parallel=8, seed=1)
        assert server.is_running
        log = server.log()
    assert found.unnamed == []
    assert "ERROR" not in log
    assert found.total >= 2_000
    assert set(found.sent) == set(FAMILIES)
    ends = {end.partition(" ")[0] for end in found.ends}
    assert {"1000", "1002", "1007", "4400"} <= ends, "it reaches what it is meant to reach"


def test_every_bound_of_every_field_is_tried() -> None:
    tried = [json.dumps(message, ensure_ascii=False) for message in boundary_messages()]
    for one in (
        '"sample_rate": 7999', '"sample_rate": 48001', '"channels": 9', '"max_delay_ms": 60001',
        '"revision": 9007199254740992', f'"utterance": "{"北" * 65}"', '"start_ms": -1',
        '"encoding": "alaw"', '"last_seq": -1',
    ):  # fmt: skip
        assert any(one in message for message in tried), one


@given(st.integers(0, 2**32), st.booleans())
def test_damaged_messages_are_taken_or_refused_by_name(seed: int, valid: bool) -> None:
    draw = random.Random(seed)
    message = valid_message(draw)
    assert check_decoding(json.dumps(message).encode())
    if not valid:
        check_decoding(mutate(draw, message))


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@example(b'{"type":"keepalive"}\x00')
@example(b'{"type":"transcript","utterance":"\\ud800"}')
@example(b"1e999")
def test_noise_is_refused_by_name(data: bytes) -> None:
    check_decoding(data)


def test_the_edges_of_fields_are_taken_or_refused_by_name() -> None:
    outcomes = {check_decoding(json.dumps(message).encode()) for message in boundary_messages()}
    assert outcomes == {True, False}
