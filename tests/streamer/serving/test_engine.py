"""Batches: what goes together, in which order, and what one failure leaves alone."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cnerta.models.runtime.inference import AcousticState
from cnerta.models.text.normalisation import NormalisedText
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.engine import Engine, describe_failure
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.names.glossary import Glossary
from cnerta.streamer.session.work import (
    CompileWork,
    EncodedAudio,
    EncodeWork,
    NormaliseWork,
    TaggedText,
    TagWork,
)
from cnerta.streamer.wire.errors import ProtocolError
from cnerta.streamer.wire.messages import ErrorMessage, SessionStart, Transcript, UtteranceFinal
from cnerta.streamer.wire.parts import GlossaryEntry


def chunk(model: Any, frames: int, value: float = 0.0) -> EncodeWork:
    samples = np.full(640 * frames, value, np.float32)
    return EncodeWork(samples, AcousticState.initial(model.bundle.geometry))


def text(content: str, frames: int = 0) -> TagWork:
    return TagWork(content, np.zeros((frames, 2), np.float32), 0)


def test_chunks_of_one_length_go_together_and_results_keep_their_order(model: Any) -> None:
    work = [chunk(model, 8, 0.1), chunk(model, 3, 0.2), chunk(model, 8, 0.3)]
    results = Engine(model).encode(work)
    levels = [r.frames[0, 0] for r in results if isinstance(r, EncodedAudio)]
    np.testing.assert_allclose(levels, [0.1, 0.2, 0.3], rtol=1e-5)
    assert sorted(model.encode_batches) == [(1, 3), (2, 8)]


def test_batches_have_a_bound(model: Any) -> None:
    Engine(model, max_batch=4).encode([chunk(model, 8)] * 10)
    assert [batch for batch, _ in model.encode_batches] == [4, 4, 2]


def test_short_windows_are_not_padded_to_long_ones(model: Any) -> None:
    calls: list[list[int]] = []
    plain = model.tag

    def tag(texts: list[str], frames: list[Any]) -> Any:
        calls.append([len(f) for f in frames])
        return plain(texts, frames)

    model.tag = tag
    lengths = [0, 10, 40, 1500, 1400, 100, 120, 0]
    results = Engine(model).tag([text("他", n) for n in lengths])
    assert len(results) == len(lengths)
    assert sorted(sorted(call) for call in calls) == [[0, 0], [10, 40], [100, 120], [1400, 1500]]


def test_short_texts_are_not_padded_to_long_ones(model: Any) -> None:
    calls: list[list[int]] = []
    plain = model.tag

    def tag(texts: list[str], frames: list[Any], hints: Any = ()) -> Any:
        calls.append([len(t) for t in texts])
        return plain(texts, frames, hints)

    model.tag = tag
    lengths = [0, 10, 60, 400, 90, 100, 500, 0]
    results = Engine(model).tag([text("他" * n) for n in lengths])
    assert [r.length for r in results if isinstance(r, TaggedText)] == lengths
    assert sorted(sorted(call) for call in calls) == [[0, 0], [10, 60], [90, 100], [400, 500]]


sizes = st.tuples(st.sampled_from([0, 1, 60, 128, 500, 512]), st.sampled_from([0, 40, 300, 1500]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(sizes, min_size=1, max_size=24))
@example([(500, 1450)] * 16)  # sixteen minutes at once: 725 units of memory each, 11,600 together
def test_the_memory_of_a_batch_is_bounded(
    kit: SimpleNamespace, items: list[tuple[int, int]]
) -> None:
    model = kit.FakeModel()
    calls: list[tuple[list[str], list[Any]]] = []

    def tag(texts: list[str], frames: list[Any]) -> list[None]:
        calls.append((texts, frames))
        return [None] * len(texts)

    model.tag = tag
    engine = Engine(model)
    results = engine.tag([text("他" * characters, frames) for characters, frames in items])
    assert [r.length for r in results if isinstance(r, TaggedText)] == [c for c, _ in items]
    assert sum(len(texts) for texts, _ in calls) == len(items)
    for texts, frames in calls:
        padded = len(texts) * (max(map(len, texts)) + 45) * (max(map(len, frames)) + 400)
        assert padded <= 2**20 or len(texts) == 1
    assert engine.has_swollen or max((c + 45) * (f + 400) for c, f in items) <= 2**18


def test_the_memory_of_whole_utterances_is_bounded(kit: SimpleNamespace) -> None:
    model = kit.FakeModel(streaming=False)
    calls: list[list[int]] = []
    plain = model.encode_utterances

    def encode(utterances: list[Any]) -> Any:
        calls.append([len(u) // 640 for u in utterances])
        return plain(utterances)

    model.encode_utterances = encode
    frames = [1500, 1500, 750, 700, 750, 750, 700, 20, 1600]
    work = [EncodeWork(np.zeros(640 * n, np.float32), None) for n in frames]
    results = Engine(model).encode(work)
    assert [len(r.frames) for r in results if isinstance(r, EncodedAudio)] == frames
    assert all(len(call) * max(call) ** 2 <= 1500**2 or len(call) == 1 for call in calls)
    assert max(map(len, calls)) == 4, "shorter ones still go together"


def test_what_cannot_be_prepared_harms_nothing_else(model: Any) -> None:
    entries = (GlossaryEntry(text="北京", label="LOC"),)
    wrong = (GlossaryEntry(text="。", label="LOC"),)
    vocabulary = model.bundle.vocabulary
    normalised, refused, glossary = Engine(model).prepare(
        [
            NormaliseWork("Ａ，北京"),
            CompileWork(wrong, vocabulary),
            CompileWork(entries, vocabulary),
        ]
    )
    assert isinstance(normalised, NormalisedText)
    assert normalised.text == "a北京"
    assert isinstance(glossary, Glossary)
    assert [m.name.text for m in glossary.find("在北京")] == ["北京"]
    assert isinstance(refused, ProtocolError)


def test_names_are_looked_for_where_the_text_is_tagged(model: Any) -> None:
    entries = (GlossaryEntry(text="尚海", label="PER"),)
    glossary = CompileWork(entries, model.bundle.vocabulary).run()
    none = np.zeros((0, 2), np.float32)
    (answer,) = Engine(model).tag([TagWork("去上海", none, 0, glossary=glossary)])
    assert isinstance(answer, TaggedText)
    assert [(m.start, m.end, m.kind) for m in answer.names] == [(1, 3, "tones")]
    assert [len(hints) for hints in model.hinted["去上海"]] == [1]


def test_only_the_item_at_fault_fails(model: Any) -> None:
    model.poison = "毒"
    results = Engine(model).tag([text("北京"), text("毒"), text("上海")])
    assert [isinstance(r, Exception) for r in results] == [False, True, False]


def test_a_failure_is_described_without_the_text() -> None:
    def quote(content: str) -> None:
        raise ValueError(f"cannot say {content}")

    try:
        quote("北京大学")
    except ValueError as error:
        described = describe_failure(error)
    assert "ValueError" in described
    assert "quote" in described
    assert "北京" not in described


# --- across sessions ------------------------------------------------------------------------------


class Gate:
    """Holds the engine's thread in its first call until it is opened."""

    def __init__(self, model: Any) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()
        self.texts: list[list[str]] = []
        plain = model.tag

        def tag(texts: list[str], frames: list[Any]) -> Any:
            self.texts.append(list(texts))
            self.entered.set()
            assert self._open.wait(10)
            return plain(texts, frames)

        model.tag = tag

    def open(self) -> None:
        self._open.set()


def host(model: Any, batcher: Batcher) -> HostedSession:
    now = asyncio.get_running_loop().time()
    protocol = ServerProtocol(
        ServedModel(model.bundle, model.device), ConnectionLimits(), "test", now
    )
    session = HostedSession(protocol, batcher)
    session.receive_message(SessionStart())
    protocol.next_message()
    return session


def say(session: HostedSession, content: str, revision: int, *, final: bool = False) -> None:
    session.receive_message(Transcript(utterance="u", revision=revision, final=final, text=content))


async def until_final(session: HostedSession) -> UtteranceFinal:
    async with asyncio.timeout(60):
        while True:
            message = await session.next_message()
            assert message is not None, "expected a final before the end"
            assert not isinstance(message, ErrorMessage), message
            if isinstance(message, UtteranceFinal):
                return message


async def test_what_comes_while_the_engine_is_busy_is_one_batch_finals_first(model: Any) -> None:
    gate = Gate(model)
    batcher = Batcher(Engine(model))
    first = host(model, batcher)
    say(first, "他", 1, final=True)
    assert await asyncio.to_thread(gate.entered.wait, 10)
    others = [host(model, batcher) for _ in range(5)]
    for number, session in enumerate(others):
        say(session, "在北京", 1)
        say(session, "在上海", 2, final=number == 4)
    assert gate.texts == [["他"]], "an idle engine starts at once"
    gate.open()
    await until_final(others[4])
    for session in others[:4]:
        say(session, "在上海了", 3, final=True)
    await asyncio.gather(*(until_final(s) for s in others[:4]))
    await batcher.close()
    assert gate.texts[1] == ["在上海"] * 5, "overtaken interims never reach the engine"
    assert [s.protocol.session.dropped_interims for s in others if s.protocol.session] == [1] * 5


async def test_urgent_sessions_do_not_wait_for_a_full_batch_of_others(model: Any) -> None:
    gate = Gate(model)
    batcher = Batcher(Engine(model), max_batch=2)
    first = host(model, batcher)
    say(first, "他", 1)
    assert await asyncio.to_thread(gate.entered.wait, 10)
    interims = [host(model, batcher) for _ in range(6)]
    for session in interims:
        say(session, "在北京", 1)
    urgent = host(model, batcher)
    say(urgent, "去上海", 1, final=True)
    gate.open()
    await until_final(urgent)
    await batcher.close()
    assert gate.texts[1][0] == "去上海"


async def test_a_failing_session_does_not_harm_its_neighbours(
    model: Any, kit: SimpleNamespace
) -> None:
    model.poison = "毒"
    batcher = Batcher(Engine(model))
    good, bad, buggy = (host(model, batcher) for _ in range(3))
    assert buggy.protocol.session is not None
    buggy.protocol.session._plan = None  # type: ignore[method-assign, assignment]
    for session, content in ((bad, "毒"), (buggy, "他"), (good, "在北京")):
        say(session, content, 1, final=True)
    assert [e.text for e in (await until_final(good)).entities] == ["北京"]
    for session in (bad, buggy):
        async with asyncio.timeout(60):
            error = await session.next_message()
            assert isinstance(error, ErrorMessage)
            assert error.code == 1011
            assert await session.next_message() is None
    good.receive(kit.speak("在北京"))
    await batcher.close()


@pytest.mark.parametrize("results", [OSError("no thread"), []])
async def test_a_batch_that_fails_as_a_whole_ends_its_sessions_and_no_others(
    model: Any, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, results: Any
) -> None:
    """Whether the engine raises or gives too few results; the other lane goes on."""
    engine = Engine(model)
    plain = engine.tag

    def tag(work: Any) -> Any:
        if any("毒" in item.text for item in work):
            if isinstance(results, Exception):
                raise results
            return results
        return plain(work)

    monkeypatch.setattr(engine, "tag", tag)
    batcher = Batcher(engine)
    bad, good = host(model, batcher), host(model, batcher)
    good.receive(kit.speak("在北京"))
    say(bad, "毒", 1, final=True)
    async with asyncio.timeout(60):
        error = await bad.next_message()
    assert isinstance(error, ErrorMessage)
    assert error.code == 1011
    say(good, "在北京", 1, final=True)
    assert (await until_final(good)).audio_used
    await batcher.close()


async def test_overload_is_seen_while_work_waits(model: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("cnerta.streamer.serving.batcher._OVERLOADED_S", 0.02)
    gate = Gate(model)
    batcher = Batcher(Engine(model))
    first, second = host(model, batcher), host(model, batcher)
    assert not batcher.is_overloaded
    say(first, "他", 1, final=True)
    assert await asyncio.to_thread(gate.entered.wait, 10)
    say(second, "他", 1, final=True)
    await asyncio.sleep(0.05)
    assert batcher.is_overloaded
    gate.open()
    await until_final(second)
    say(first, "在", 2)
    await asyncio.sleep(0.05)
    assert not batcher.is_overloaded
    await batcher.close()


async def test_a_session_that_left_is_not_asked_for_work(model: Any) -> None:
    gate = Gate(model)
    batcher = Batcher(Engine(model))
    first, gone = host(model, batcher), host(model, batcher)
    say(first, "他", 1, final=True)
    assert await asyncio.to_thread(gate.entered.wait, 10)
    say(gone, "在北京", 1, final=True)
    gone.disconnect()
    gate.open()
    await until_final(first)
    await batcher.close()
    assert gate.texts == [["他"]]
    assert await gone.next_message() is None


async def test_a_batch_that_hangs_fails_its_sessions_and_no_others(model: Any) -> None:
    gate = Gate(model)
    batcher = Batcher(Engine(model), timeout_s=1.0)
    stuck, good = host(model, batcher), host(model, batcher)
    say(stuck, "他", 1, final=True)
    async with asyncio.timeout(60):
        error = await stuck.next_message()
    assert isinstance(error, ErrorMessage)
    assert error.code == 1011
    assert batcher.is_overloaded, "no new sessions for a while"
    say(good, "在北京", 1, final=True)
    assert await asyncio.to_thread(gate.entered.wait, 10)
    gate.open()
    assert (await until_final(good)).text == "在北京"
    await batcher.close()


async def test_closing_does_not_wait_for_what_hangs(model: Any) -> None:
    gate = Gate(model)
    batcher = Batcher(Engine(model))
    say(host(model, batcher), "他", 1, final=True)
    assert await asyncio.to_thread(gate.entered.wait, 10)
    async with asyncio.timeout(60):
        await batcher.close(timeout_s=0.05)
    gate.open()


async def test_after_a_batch_that_hung_the_graphs_are_opened_again(model: Any) -> None:
    gate = Gate(model)
    reopened = threading.Event()
    model.reopen = reopened.set
    batcher = Batcher(Engine(model), timeout_s=0.05)
    stuck = host(model, batcher)
    say(stuck, "他", 1, final=True)
    async with asyncio.timeout(60):
        error = await stuck.next_message()
    assert isinstance(error, ErrorMessage)
    assert await asyncio.to_thread(reopened.wait, 10)
    assert batcher.hanging == 1
    gate.open()
    async with asyncio.timeout(60):
        while batcher.hanging:
            await asyncio.sleep(0.01)
    await batcher.close()


async def test_too_many_threads_left_behind_are_an_overload_for_good(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnerta.streamer.serving.batcher._RECOVERY_S", 0.0)
    gate = Gate(model)
    batcher = Batcher(Engine(model), timeout_s=0.05)
    overloaded = []
    for _ in range(4):
        session = host(model, batcher)
        say(session, "他", 1, final=True)
        async with asyncio.timeout(60):
            assert isinstance(await session.next_message(), ErrorMessage)
        overloaded.append(batcher.is_overloaded)
    assert overloaded == [False, False, False, True]
    gate.open()
    await batcher.close()


async def test_a_failed_final_is_tried_again_across_batches(model: Any) -> None:
    """And what failed is counted."""
    failures: list[tuple[str, int]] = []
    observer = SimpleNamespace(
        on_batch=lambda *_: None, on_failures=lambda lane, items: failures.append((lane, items))
    )
    plain, left = model.tag, [True, True]

    def tag(texts: list[str], frames: list[Any]) -> Any:
        if "毒" in texts and left and left.pop():
            raise ValueError("a graph that fails")
        return plain(texts, frames)

    model.tag = tag
    batcher = Batcher(Engine(model), observer=observer)
    session = host(model, batcher)
    say(session, "毒", 1, final=True)
    with pytest.raises(AssertionError, match="internal"):
        await until_final(session)
    assert failures == [("text", 1), ("text", 1)]
    left.append(True)
    session = host(model, batcher)
    say(session, "毒", 1, final=True)
    assert (await until_final(session)).text == "毒"
    await batcher.close()
