"""The protocol's rules over random histories of revisions, audio and engine timing."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from cnerta.models.runtime.decoding import SpanHint
from cnerta.models.runtime.labels import Span, outermost, parents
from cnerta.models.text.normalisation import normalise
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    SessionFinish,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import Entity, GlossaryEntry

PIECES = ["北京", "北京大学", "上海", "张三", "南京市长江大桥", "他", "在", "，", " ", "𠀀", "李四"]
PIECES += ["2024年", "3.5%", "長江大橋"]
texts = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@dataclass(frozen=True)
class Revise:
    utterance: str
    revision: int
    text: str
    final: bool
    timed: bool


@dataclass(frozen=True)
class Speak:
    text: str


@dataclass(frozen=True)
class Relearn:
    """The model changes its mind about a word."""

    word: str
    label: str | None


@dataclass(frozen=True)
class Update:
    labels: tuple[str, ...] | None
    nested: bool
    interim: bool = True


@dataclass(frozen=True)
class Expect:
    """The client changes its glossary."""

    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Work:
    rounds: int


@dataclass(frozen=True)
class Take:
    """A lane of the engine begins with what there is for it, if it is free."""

    lane: str


@dataclass(frozen=True)
class Give:
    """It brings back what it has taken."""

    lane: str


@dataclass(frozen=True)
class Wait:
    seconds: float


labels = st.sampled_from(["PER", "LOC", "ORG"])
lanes = st.sampled_from(["audio", "text"])
steps = st.one_of(
    st.builds(
        Revise,
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 12),
        texts,
        st.sampled_from([False, False, False, True]),
        st.booleans(),
    ),
    st.builds(Speak, texts),
    st.builds(
        Relearn,
        st.sampled_from(
            ["北京", "北京大学", "上海", "京大", "学上海", "四年北京", "分之", "三点", "京百"]
        ),
        st.none() | labels,
    ),
    st.builds(
        Update,
        st.none() | st.lists(labels, max_size=3, unique=True).map(tuple),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        Expect,
        st.lists(
            st.tuples(
                st.sampled_from(["上海", "尚海", "背景", "她在", "北惊大学", "2024年"]), labels
            ),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(Work, st.integers(1, 4)),
    st.builds(Take, lanes),
    st.builds(Give, lanes),
    st.builds(Wait, st.sampled_from([0.05, 0.4, 1.0])),
)


def latest_answer(
    model: Any, text: str, update: Update, hints: tuple[SpanHint, ...] = ()
) -> list[tuple[Any, ...]]:
    """What the client should know of a text: the model asked again, in the client's offsets."""
    normal = normalise(text)
    found = [Span(s.start, s.end, s.label) for s in model._spans(normal.text, hints)]
    spans = in_whole_tokens(found, text)
    if not update.nested:
        spans = outermost(spans)
    if update.labels is not None:
        spans = [s for s in spans if s.label in update.labels]
    known = []
    for span, parent in zip(spans, parents(spans), strict=True):
        start, end = normal.original_range(span.start, span.end)
        around = None if parent is None else spans[parent]
        outer = None if around is None else (around.start, around.end, around.label)
        known.append((start, end, span.label, text[start:end], outer))
    return sorted(known, key=str)


def in_whole_tokens(spans: list[Span], text: str) -> list[Span]:
    """Spans over whole tokens of the client's text; of those that collide for it, the first."""
    normal = normalise(text)
    tokens = list(zip(normal.offsets.tolist(), normal.ends.tolist(), strict=True))
    kept: dict[Span, bool] = {}
    for span in spans:
        start = tokens.index(tokens[span.start])
        end = len(tokens) - tokens[::-1].index(tokens[span.end - 1])
        new = Span(start, end, span.label)
        collides = any(
            new == other
            or (
                (is_grown or new != span)
                and min(new.end, other.end) > max(start, other.start)
                and not (set(range(start, end)) <= set(range(other.start, other.end)))
                and not (set(range(start, end)) >= set(range(other.start, other.end)))
            )
            for other, is_grown in kept.items()
        )
        if not collides:
            kept[new] = new != span
    return sorted(kept, key=lambda s: (s.start, -s.end, s.label))


def described(entities: dict[str, Any], text: str) -> list[tuple[Any, ...]]:
    """The same of what the client does know."""
    normal = normalise(text)
    known = []
    for entity in entities.values():
        outer = None
        if entity.parent is not None:
            around = entities[entity.parent]
            outer = (*normal.normalised_range(around.start, around.end), around.label)
        known.append((entity.start, entity.end, entity.label, entity.text, outer))
    return sorted(known, key=str)


def lies_in(entity: Entity, text: str) -> bool:
    """Whether an entity's offsets, of both kinds, cut its text out of ``text``."""
    cut = text.encode("utf-16-le")[2 * entity.start_utf16 : 2 * entity.end_utf16]
    return text[entity.start : entity.end] == entity.text == cut.decode("utf-16-le", "replace")


@settings(
    max_examples=1000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(steps, max_size=30), st.booleans())
def test_the_rules_hold_whatever_comes(
    kit: SimpleNamespace, history: list[Any], interim: bool
) -> None:
    model = kit.FakeModel()
    driver = kit.Driver(model, SessionStart(interim=interim))
    driver.drain()
    update = Update(None, True, interim)
    sent_final: set[str] = set()
    sent_texts: dict[tuple[str, int], set[str]] = {}
    # The text each utterance was last answered for, with the lexicon and options of that moment.
    # With a glossary that changes: for each that the model was told of.
    expected: dict[str, list[list[tuple[Any, ...]]]] = {}

    def note_finals() -> None:
        for message in driver.drain():
            if isinstance(message, UtteranceFinal):
                hints = model.hinted.get(normalise(message.text).text, [()])
                expected[message.utterance] = [
                    latest_answer(model, message.text, update, told) for told in set(hints)
                ]

    def run_one_round() -> bool:
        moved = driver.step()
        note_finals()
        return bool(moved)

    for step in history:
        if isinstance(step, Revise):
            times = {"start_ms": 0, "end_ms": 2000} if step.timed else {}
            driver.send(
                Transcript(
                    utterance=step.utterance,
                    revision=step.revision,
                    final=step.final,
                    text=step.text,
                    **times,
                )
            )
            sent_texts.setdefault((step.utterance, step.revision), set()).add(step.text)
            if step.final:
                sent_final.add(step.utterance)
        elif isinstance(step, Speak):
            driver.protocol.receive(kit.speak(step.text) or b"\0", driver.now)
        elif isinstance(step, Relearn):
            if step.label is None:
                model.lexicon.pop(step.word, None)
            else:
                model.lexicon[step.word] = step.label
        elif isinstance(step, Update):
            update = step
            driver.send(
                SessionUpdate(
                    labels=None if step.labels is None else list(step.labels),
                    nested=step.nested,
                    interim=step.interim,
                )
            )
        elif isinstance(step, Expect):
            glossary = [GlossaryEntry(text=name, label=label) for name, label in step.names]
            driver.send(SessionUpdate(glossary=glossary))
        elif isinstance(step, Work):
            for _ in range(step.rounds):
                run_one_round()
        elif isinstance(step, Take):
            driver.take(step.lane)
        elif isinstance(step, Give):
            driver.give(step.lane)
            note_finals()
        else:
            driver.now += step.seconds
            driver.protocol.tick(driver.now)
        driver.drain()
    driver.send(SessionFinish())
    while run_one_round():
        pass
    driver.drain()

    events = driver.events
    assert not [m for m in driver.seen if isinstance(m, ErrorMessage)]
    assert isinstance(driver.seen[-1], SessionSummary)

    # Rule 1: numbers without gaps; versions only rise; an id names one entity of one utterance.
    assert [m.seq for m in events] == list(range(1, len(events) + 1))
    versions: dict[str, int] = {}
    owners: dict[str, str] = {}
    gone: set[str] = set()
    for event in events:
        if isinstance(event, EntityUpsert):
            assert event.entity.version > versions.get(event.entity.id, 0)
            versions[event.entity.id] = event.entity.version
            assert owners.setdefault(event.entity.id, event.utterance) == event.utterance
            assert event.entity.id not in gone, "a retracted id does not come back"
        elif isinstance(event, EntityRetract):
            assert event.id in versions
            gone.add(event.id)

    # Rule 2: offsets are of the client's own text, in code points and in UTF-16.
    for event in events:
        if isinstance(event, UtteranceFinal):
            assert event.text in sent_texts[event.utterance, event.revision]
            assert all(lies_in(entity, event.text) for entity in event.entities)
        elif isinstance(event, EntityUpsert):
            texts_then = sent_texts[event.utterance, event.revision]
            assert any(lies_in(event.entity, text) for text in texts_then)

    # Rule 3: status only rises, nothing follows a final, and it is complete.
    order = {"tentative": 0, "stable": 1, "final": 2}
    status: dict[str, int] = {}
    closed: set[str] = set()
    for event in events:
        assert event.utterance not in closed, "nothing follows utterance.final"
        if isinstance(event, EntityUpsert):
            assert order[event.entity.status] >= status.get(event.entity.id, 0)
            status[event.entity.id] = order[event.entity.status]
        elif isinstance(event, EntityRetract):
            assert status[event.id] < order["final"]
        else:
            closed.add(event.utterance)
            assert {e.status for e in event.entities} <= {"final"}

    # Rule 4: exactly one final for each final transcript.
    finals = [m for m in events if isinstance(m, UtteranceFinal)]
    assert sorted(m.utterance for m in finals) == sorted(sent_final)

    # Rule 5: a parent is another entity of the same utterance that the client knows by then, or is
    # told of in the same answer.
    alive: dict[str, str] = {}
    for number, event in enumerate(events):
        if isinstance(event, EntityUpsert):
            alive[event.entity.id] = event.utterance
            parent = event.entity.parent
            if parent is not None:
                assert parent != event.entity.id
                told = {
                    other.entity.id
                    for other in events[number:]
                    if isinstance(other, EntityUpsert)
                    and (other.utterance, other.revision) == (event.utterance, event.revision)
                }
                assert alive.get(parent) == event.utterance or parent in told
        elif isinstance(event, EntityRetract):
            del alive[event.id]

    # Folding the deltas gives the final's own set, which is the model's latest answer.
    known = kit.fold(events)
    had_no_interims = not interim or any(isinstance(s, Update) and not s.interim for s in history)
    for final in finals:
        own = {e.id: e for e in final.entities}
        # Nobody is told of changes to what was never shown.
        shown = known.get(final.utterance, {})
        assert shown == own or (had_no_interims and not shown)
        assert described(own, final.text) in expected[final.utterance]
        for entity in final.entities:
            if entity.suggested_text is not UNSET:
                assert entity.glossary is True
                suggested, told = normalise(entity.suggested_text).text, normalise(entity.text).text
                assert suggested != told
                assert len(suggested) == len(told)

    # Rules 6 to 8: times rise and are there exactly if somebody gave them.
    for final in finals:
        assert final.audio_used == (final.time_source == "alignment")
        assert bool(final.characters) == (final.time_source != "none")
        if final.characters:
            assert len(final.characters) == len(final.text)
            edges = [edge for pair in final.characters for edge in pair]
            assert edges == sorted(edges)
            if final.audio_used:
                assert edges[-1] <= driver.protocol.session.received_ms
        for entity in final.entities:
            assert entity.time_source == final.time_source
            own_times = final.characters[entity.start : entity.end]
            expected_times = (own_times[0][0], own_times[-1][1]) if own_times else (None, None)
            assert (entity.start_ms, entity.end_ms) == expected_times

    # Every sample once: whole frames only, all of them.
    total = driver.protocol.session.received_ms * 16
    assert model.encoded_samples == total - total % 640
    assert driver.protocol.session.is_idle


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(texts, min_size=1, max_size=10), st.booleans())
def test_folding_the_deltas_always_gives_the_latest_answer(
    kit: SimpleNamespace, revisions: list[str], nested: bool
) -> None:
    model = kit.FakeModel()
    driver = kit.Driver(model, SessionStart(nested=nested, max_delay_ms=200))
    for number, text in enumerate(revisions):
        driver.audio(kit.speak(text))
        driver.transcript(text, number).wait(0.1)
        known = kit.fold(driver.events).get("u1", {})
        assert described(known, text) == latest_answer(model, text, Update(None, nested))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_entity_keeps_its_id_while_text_grows_around_it(
    kit: SimpleNamespace, data: st.DataObject
) -> None:
    """Edits that leave an entity's own characters alone never cost it its id."""
    filler = st.text("他在去来的了是", max_size=5)
    driver = kit.Driver(kit.FakeModel(), SessionStart())
    ids = set()
    for number in range(6):
        before, after = data.draw(filler), data.draw(filler)
        driver.transcript(f"{before}北京{after}", number).run()
        (entity,) = kit.fold(driver.events)["u1"].values()
        ids.add(entity.id)
        assert entity.start == len(before)
    assert len(ids) == 1
    assert not [m for m in driver.events if isinstance(m, EntityRetract)]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["2024年", "12:30:05", "3.5%", "¥1,234.5万", "2024-03-05", "138-1234-5678"]),
    st.text("他在去来的了是", max_size=3),
    st.text("他在去来的了是", max_size=3),
)
def test_a_number_that_grows_disturbs_no_entity_beside_it(
    kit: SimpleNamespace, number: str, before: str, after: str
) -> None:
    """However it is read at each of its lengths, entities before and after it stay as they are."""
    driver = kit.Driver(kit.FakeModel(), SessionStart())
    for length in range(len(number) + 1):
        driver.transcript(f"北京{before}{number[:length]}{after}上海", length).run()
    known = kit.fold(driver.events)["u1"]
    assert sorted(e.text for e in known.values()) == ["上海", "北京"]
    assert not [m for m in driver.events if isinstance(m, EntityRetract)]
    first = [m for m in driver.events if m.entity.text == "北京"]
    assert [m.entity.status for m in first] == ["tentative", "stable"], "told twice: new, stable"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text("他在去北京上海张三李四", min_size=1, max_size=6),
            st.integers(0, 8),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=5,
    )
)
@example([("三", 0, 1), ("三", 0, 2)])  # spoken without a pause, answered once both were
def test_each_utterance_gets_its_own_audio(
    kit: SimpleNamespace, said: list[tuple[str, int, int]]
) -> None:
    """Rule 7: transcripts without times, each up to two utterances after it was said."""
    driver = kit.Driver(kit.FakeModel(), SessionStart())
    known: list[list[tuple[int, int]]] = []
    clock = 0
    waiting: list[int] = []
    for number, (text, pause, behind) in enumerate(said):
        clock += kit.FRAME_MS * pause
        starts = [clock + kit.CHARACTER_MS * i for i in range(len(text))]
        known.append([(s, s + kit.CHARACTER_MS - kit.FRAME_MS) for s in starts])
        clock += kit.CHARACTER_MS * len(text)
        driver.audio(kit.silence(kit.FRAME_MS * pause) + kit.speak(text))
        waiting.append(number)
        while len(waiting) > behind:
            ready = waiting.pop(0)
            driver.transcript(said[ready][0], 1, utterance=str(ready), final=True).run()
    driver.audio(kit.silence(400))
    for ready in waiting:
        driver.transcript(said[ready][0], 1, utterance=str(ready), final=True).run()

    ended = 0
    assert len(driver.finals) == len(said)
    for name, final in driver.finals.items():
        assert final.audio_used
        assert final.characters[0][0] >= ended, "no two utterances share a moment"
        ended = final.characters[-1][1]
        for found, true in zip(final.characters, known[int(name)], strict=True):
            assert max(found[0], true[0]) < min(found[1], true[1]), "it overlaps where it was said"
