from __future__ import annotations

import io
import math

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions

from cnerta.streamer.client.connection_change import ConnectionChange
from cnerta.streamer.outputs.highlighting import Highlighter, HighlightRule
from cnerta.streamer.outputs.view_state import CAPTIONS_KEPT, Caption, ViewState
from cnerta.streamer.sources import Revision
from cnerta.streamer.terminal.drawing import bracketed, format_time, render
from cnerta.streamer.terminal.keyboard import Key
from cnerta.streamer.terminal.palette import FULL, SIXTEEN, Palette
from cnerta.streamer.terminal.view import JsonView, LiveView, PlainView
from cnerta.streamer.wire.codec import decode_server
from cnerta.streamer.wire.messages import (
    EntityRetract,
    ErrorMessage,
    ServerMessage,
    SessionGoingAway,
    WarningMessage,
)
from cnerta.streamer.wire.parts import CharacterReading

from .. import server_messages as wire

SENTENCE = "他在北京大学见到了江大桥"
ORG = wire.entity("ORG", "北京大学", 2)
INNER = wire.entity("LOC", "北京", 2, parent=ORG.id)
PER = wire.entity("PER", "江大桥", 9)


def spoken(*messages: ServerMessage, final: bool = False) -> ViewState:
    """After the sentence was sent at 2.0 s and the messages came at 2.05 s."""
    state = ViewState().received(wire.ready(), 1.0).with_audio(2_300, -18.0)
    state = state.sent(Revision("u1", 3, SENTENCE, final), 2.0)
    for message in messages:
        state = state.received(message, 2.05)
    return state


def drawn(
    state: ViewState, width: int = 100, height: int = 24, palette: Palette | None = None
) -> str:
    system = {None: None, FULL: "truecolor", SIXTEEN: "standard"}[palette]
    console = Console(
        file=io.StringIO(), width=width, force_terminal=palette is not None, color_system=system
    )
    console.print(render(state, width, height, palette=palette or FULL))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def upserts() -> list[ServerMessage]:
    return [wire.upsert("u1", 3, found) for found in (PER, INNER, ORG)]


def test_state_is_the_fold_of_what_came() -> None:
    state = spoken(*upserts())
    assert (state.status, state.model, state.behind_live_ms) == ("live", "tiny on CPU", 40)
    (caption,) = state.captions
    assert caption.text == SENTENCE
    assert not caption.final
    assert caption.entities == (ORG, INNER, PER), "in order of the text, outer before inner"
    assert caption.latency_ms(PER.id) == 50


def test_a_change_replaces_and_a_retraction_removes() -> None:
    grown = wire.entity("PER", "见到了江大桥", 6, id=PER.id, version=2)
    gone = EntityRetract(
        seq=5, utterance="u1", revision=4, id=INNER.id, reason="text_changed", behind_live_ms=7
    )
    state = spoken(*upserts(), wire.upsert("u1", 3, grown), gone)
    assert state.captions[0].entities == (ORG, grown)
    assert state.behind_live_ms == 7


def test_latency_is_that_of_the_first_answer() -> None:
    state = spoken(*upserts()).sent(Revision("u1", 4, SENTENCE + "了", False), 3.0)
    state = state.received(wire.upsert("u1", 4, PER), 3.5)
    assert state.captions[0].latency_ms(PER.id) == 50


def test_the_final_answer_is_complete_by_itself() -> None:
    certain = wire.entity("ORG", "北京大学", 2, status="final")
    state = spoken(*upserts(), wire.final("u1", 3, SENTENCE, certain))
    (caption,) = state.captions
    assert caption.final
    assert caption.entities == (certain,)
    assert caption.final_latency_ms == 50


def test_events_of_a_forgotten_utterance_do_not_bring_it_back() -> None:
    state = ViewState()
    for number in range(CAPTIONS_KEPT + 5):
        state = state.sent(Revision(f"u{number}", 1, "好", True), 0.0)
    assert len(state.captions) == CAPTIONS_KEPT
    assert state.received(wire.upsert("u0", 1, PER), 0.0).captions == state.captions


@pytest.mark.parametrize(
    ("message", "status", "notice"),
    [
        (WarningMessage(name="audio_clipped", detail="loud"), "live", "audio_clipped: loud"),
        (
            ErrorMessage(code=4400, name="not_json", retryable=False, detail="got x"),
            "refused",
            "not_json: got x",
        ),
        (SessionGoingAway(resume=None, reason="shutdown"), "going away (shutdown)", ""),
        (wire.summary(), "ended", ""),
    ],
)
def test_state_of_the_session(message: ServerMessage, status: str, notice: str) -> None:
    state = spoken(message)
    assert (state.status, state.notice) == (status, notice)
    assert status in drawn(state)
    assert notice in drawn(state)


def test_picture_shows_captions_entities_times_and_figures() -> None:
    picture = drawn(spoken(*upserts()))
    assert "他在北京大学ORG?见到了江大桥PER?" in picture
    assert "└ 北京" in picture
    for part in ("0:00.30-0:00.90", "93%", "50 ms", "tentative", "0:02.30", "40 ms behind"):
        assert part in picture


def test_picture_without_anything_said() -> None:
    assert "waiting for speech" in drawn(ViewState())
    assert "connecting" in drawn(ViewState())


@pytest.mark.parametrize(
    ("palette", "white_on_green", "white_on_magenta"),
    [
        (FULL, "38;2;255;255;255;48;2;0;135;0", "38;2;255;255;255;48;2;175;0;135"),
        (SIXTEEN, "30;106", "30;105"),
    ],
)
def test_types_have_their_colours_inner_ones_a_line_and_open_ones_italics(
    palette: Palette, white_on_green: str, white_on_magenta: str
) -> None:
    tentative = drawn(spoken(*upserts()), palette=palette)
    assert f"\x1b[3;{white_on_green}m大学" in tentative, "italic on the colour of ORG"
    assert f"\x1b[3;4;{white_on_green}m北京" in tentative, "underlined within it"
    assert f"\x1b[3;{white_on_magenta}m江大桥" in tentative, "italic on that of PER"
    certain = wire.entity("PER", "江大桥", 9, status="final")
    settled = drawn(spoken(wire.final("u1", 3, SENTENCE, certain)), palette=palette)
    assert f"\x1b[{white_on_magenta}m江大桥" in settled


def test_nothing_moves_when_a_name_is_settled() -> None:
    certain = [
        wire.entity(found.label, found.text, found.start, parent=found.parent, status="final")
        for found in (ORG, INNER, PER)
    ]
    before, after = spoken(*upserts()), spoken(wire.final("u1", 3, SENTENCE, *certain))
    (open_line,) = [line for line in drawn(before).splitlines() if "见到了" in line]
    (settled,) = [line for line in drawn(after).splitlines() if "见到了" in line]
    assert open_line.replace("?", " ") == settled
    assert open_line != settled


def test_neighbours_of_one_type_are_told_apart() -> None:
    pair = [wire.entity("LOC", "南京市", 0), wire.entity("LOC", "长江大桥", 3)]
    state = spoken(wire.final("u1", 3, "南京市长江大桥", *pair))
    assert "南京市LOC?长江大桥LOC?" in drawn(state)


def test_without_colour_brackets_take_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    view = LiveView(console)
    view.state = spoken(*upserts())
    console.print(view.picture())
    assert isinstance(console.file, io.StringIO)
    assert "他在[ORG [LOC 北京]大学]见到了[PER 江大桥]" in console.file.getvalue()


@pytest.mark.parametrize("width", [20, 30, 39, 40, 63, 64, 200])
@pytest.mark.parametrize("height", [8, 24])
def test_no_line_is_wider_than_the_terminal(width: int, height: int) -> None:
    lines = drawn(spoken(*upserts(), wire.final("u1", 3, SENTENCE, ORG, INNER, PER)), width, height)
    assert max(cell_len(line) for line in lines.splitlines()) <= width


def test_narrow_picture_keeps_what_matters() -> None:
    picture = drawn(spoken(*upserts()), width=34)
    for part in ("live", "北京大学", "江大桥", "PER", "0:00.30"):
        assert part in picture


def test_many_long_captions_stay_within_the_height() -> None:
    state = spoken()
    for number in range(CAPTIONS_KEPT):
        sentence = f"{number:02d}" + "他在北京" * 20
        state = state.sent(Revision(f"x{number}", 1, sentence, True), 0.0)
        state = state.received(
            wire.final(f"x{number}", 1, sentence, wire.entity("LOC", "北京", 4)), 0.0
        )
    picture = drawn(state, width=80, height=24)
    assert len(picture.splitlines()) <= 24
    assert f"{CAPTIONS_KEPT - 1:02d}他在" in picture, "the newest is there"


def test_a_transcript_cannot_command_the_terminal() -> None:
    evil = "江\x1b]0;title\x07大\x9b31m"
    found = wire.entity("P\x1b[2J", evil, 0)
    state = ViewState().sent(Revision("u1", 1, evil, True), 0.0)
    state = state.received(wire.final("u1", 1, evil, found), 0.0)
    for control in ("\x1b", "\x07", "\x9b"):
        assert control not in drawn(state)
        assert control not in bracketed(state.captions[0])


def test_an_answer_from_the_text_alone_looks_so() -> None:
    heard = wire.final("u1", 3, SENTENCE, PER)
    assert "text alone" not in drawn(spoken(heard))
    assert "from the text alone" in drawn(spoken(msgspec.structs.replace(heard, audio_used=False)))


def test_a_recorded_session_has_a_mark_of_its_own() -> None:
    told = msgspec.structs.replace(wire.ready(), recorded=True)
    state = ViewState().received(told, 1.0)
    for width in (100, 24):
        assert "● REC" in drawn(state, width)
    assert "REC" not in drawn(ViewState().received(wire.ready(), 1.0))
    elsewhere = state.connection_changed(ConnectionChange("restarted", "ws://b"))
    assert "REC" not in drawn(elsewhere), "the new server does not record"
    again = ConnectionChange("resumed", "ws://a", is_recorded=True)
    assert "● REC" in drawn(elsewhere.connection_changed(again))
    out = io.StringIO()
    with PlainView(Console(file=out)) as view:
        view.on_message(told)
        view.on_connection(again)
    said = "● REC audio, transcript and messages are recorded"
    assert [line for line in out.getvalue().splitlines() if "REC" in line] == [said, said]


def test_a_silent_server_shows_and_its_figures_do_not() -> None:
    view = LiveView(Console(file=io.StringIO(), width=100, height=24))
    view.state = spoken(*upserts())
    assert " live " in drawn(view.state)
    assert "ms behind" in drawn(view.state)
    view.on_connection(ConnectionChange("silent", "ws://a", "for 1.5 s"))
    assert " no answer " in drawn(view.state)
    assert " live " not in drawn(view.state)
    assert "ms behind" not in drawn(view.state)
    view.on_connection(ConnectionChange("heard", "ws://a"))
    assert " live " in drawn(view.state)
    assert "ms behind" in drawn(view.state)
    view.on_connection(ConnectionChange("silent", "ws://a", "for 1.5 s"))
    view.on_connection(ConnectionChange("lost", "ws://a", "nothing for 5 s"))
    assert " reconnecting " in drawn(view.state)
    assert "ms behind" not in drawn(view.state)
    view.on_connection(ConnectionChange("resumed", "ws://a"))
    assert " live " in drawn(view.state)


def test_offsets_into_an_older_text_are_not_drawn_into_the_newer_one() -> None:
    state = spoken(*upserts()).sent(Revision("u1", 4, "昨天" + SENTENCE, False), 2.1)
    assert bracketed(state.captions[0]) == "昨天" + SENTENCE


@pytest.mark.parametrize(
    ("entities", "expected"),
    [
        ((ORG, INNER, PER), "他在[ORG [LOC 北京]大学]见到了[PER 江大桥]"),
        ((), SENTENCE),
        ((wire.entity("PER", SENTENCE, 0),), f"[PER {SENTENCE}]"),
    ],
)
def test_brackets(entities: tuple[wire.Entity, ...], expected: str) -> None:
    assert bracketed(Caption("u1", text=SENTENCE, entities=entities)) == expected


def test_format_time() -> None:
    assert [format_time(ms) for ms in (0, 340, 59_999, 61_005, 3_600_000)] == [
        "0:00.00",
        "0:00.34",
        "1:00.00",
        "1:01.00",  # half a hundredth, to the even one
        "60:00.00",
    ]


def test_plain_lines_say_what_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnerta.streamer.outputs.presenter.time.monotonic", lambda: 5.0)
    out = io.StringIO()
    with PlainView(Console(file=out, width=40)) as view:
        view.on_message(wire.ready())
        view.on_revision(Revision("u1", 3, SENTENCE, True))
        view.on_audio(bytes(640), 20.0)
        view.on_message(wire.upsert("u1", 3, PER))
        view.on_message(wire.final("u1", 3, SENTENCE, ORG, INNER))
        view.on_message(WarningMessage(name="audio_clipped", detail="loud"))
        view.on_message(wire.summary())
    lines = out.getvalue().splitlines()
    assert lines[0] == "他在[ORG [LOC 北京]大学]见到了江大桥"
    assert lines[1].startswith("  ORG  北京大学  0:00.30-0:00.90  93%  after 0 ms")
    assert lines[2].startswith("  LOC  └ 北京  0:00.30-0:00.90")
    assert lines[3] == "warning audio_clipped: loud"
    assert lines[4] == "1 utterance, 2 entities in 0:02.30 of audio; 0 interims dropped"
    assert len(lines) == 5


def test_plain_lines_say_where_the_audio_was_not_used() -> None:
    out = io.StringIO()
    with PlainView(Console(file=out)) as view:
        view.on_message(wire.final("u1", 1, "江大桥", wire.entity("PER", "江大桥", 0)))
        assert "alone" not in out.getvalue()
        unheard = msgspec.structs.replace(wire.final("u2", 1, "江大桥"), audio_used=False)
        view.on_message(unheard)
        view.on_message(msgspec.structs.replace(unheard, utterance="u3", text=""))
    assert out.getvalue().splitlines()[2:] == ["江大桥", "  answered from the text alone", ""]


def read(text: str, start: int, reading: str, confidence: float) -> CharacterReading:
    return CharacterReading(
        start=start,
        end=start + 1,
        start_utf16=start,
        end_utf16=start + 1,
        text=text,
        reading=reading,
        confidence=confidence,
        alternatives=[],
    )


def test_readings_are_told_with_the_final_where_they_were_asked_for() -> None:
    asked = msgspec.structs.replace(
        wire.final("u1", 1, "长行"),
        readings=[read("长", 0, "zhang3", 0.98), read("行", 1, "\x1bhang2", 0.914)],
    )
    none_found = msgspec.structs.replace(wire.final("u2", 1, "北京"), readings=[])
    told = "reading 长 zhang3 98%, 行 \N{REPLACEMENT CHARACTER}hang2 91%"
    out = io.StringIO()
    with PlainView(Console(file=out)) as view:
        for message in (asked, none_found, wire.final("u3", 1, "上海")):
            view.on_message(message)
    assert out.getvalue().splitlines() == ["长行", f"  {told}", "北京", "上海"]
    picture = drawn(view.state)
    assert told in picture
    assert picture.count("reading") == 1


@pytest.mark.parametrize("paced", [True, False])
def test_a_warning_of_what_is_done_on_purpose_is_not_shown(paced: bool) -> None:
    out = io.StringIO()
    with PlainView(Console(file=out), paced=paced) as view:
        view.on_message(WarningMessage(name="audio_ahead_of_realtime", detail="5 s ahead"))
        view.on_message(WarningMessage(name="audio_clipped", detail="loud"))
    ahead = ["warning audio_ahead_of_realtime: 5 s ahead"] if paced else []
    assert out.getvalue().splitlines() == [*ahead, "warning audio_clipped: loud"]
    live = LiveView(Console(file=io.StringIO()), paced=paced)
    live.on_message(WarningMessage(name="audio_ahead_of_realtime", detail="5 s ahead"))
    assert bool(live.state.notice) is paced


def test_json_lines_are_the_messages_and_nothing_else() -> None:
    out = io.BytesIO()
    messages = [
        wire.ready(),
        wire.upsert("u1", 1, PER),
        wire.final("u1", 1, "江大桥"),
        wire.summary(),
    ]
    with JsonView(out) as view:
        view.on_audio(b"", 0.0)
        view.on_revision(Revision("u1", 1, "江大桥", True))
        for message in messages:
            view.on_message(message)
            assert out.getvalue().endswith(b"\n"), "every line is written at once"
    assert [decode_server(line) for line in out.getvalue().splitlines()] == messages
    assert msgspec.json.decode(out.getvalue().splitlines()[2])["type"] == "utterance.final"


def test_what_is_hidden_is_listed_and_not_highlighted() -> None:
    out = io.StringIO()
    highlighter = Highlighter(HighlightRule(first_only=True))
    with PlainView(Console(file=out), highlighter=highlighter) as view:
        for name in ("u1", "u2"):
            view.on_revision(Revision(name, 3, SENTENCE, True))
            view.on_message(wire.final(name, 3, SENTENCE, PER))
    lines = out.getvalue().splitlines()
    assert lines[0] == "他在北京大学见到了[PER 江大桥]"
    assert lines[2] == SENTENCE
    assert lines[3].startswith("  PER  江大桥")


def test_time_line_shows_levels_and_names_where_they_were_spoken() -> None:
    found = wire.entity("PER", "江大桥", 9, start_ms=1_000, end_ms=1_500)
    state = spoken(wire.final("u1", 3, SENTENCE, found, INNER))
    for at_ms in range(2_320, 3_000, 20):
        state = state.with_audio(at_ms, -math.inf if at_ms > 2_500 else -1.0)
    lines = drawn(state, width=80, height=20).splitlines()
    levels, names = lines[2], lines[3]
    assert levels[2:10] == "0:00.00 "
    assert "0:02.98" in levels
    assert levels[10:33] == " " * 18 + "██" + " " * 3
    assert names[10:].index("江大桥") == 8, "a second, in eighths"
    assert "北京" not in names, "only what is outermost"


def test_names_that_follow_at_once_are_both_there() -> None:
    first = wire.entity("LOC", "北京大学", 2, start_ms=1_000, end_ms=1_100)
    second = wire.entity("PER", "江大桥", 9, start_ms=1_500, end_ms=2_000)
    at_once = wire.entity("ORG", "见到", 6, start_ms=1_000, end_ms=1_050)
    state = spoken(wire.final("u1", 3, SENTENCE, first, at_once, second)).with_audio(3_000, -20.0)
    assert "        北京江大桥  " in drawn(state, width=80).splitlines()[3]


def test_names_of_one_type_that_follow_at_once_do_not_look_like_one() -> None:
    first = wire.entity("LOC", "南京市", 0, start_ms=1_000, end_ms=1_500)
    second = wire.entity("LOC", "长江大桥", 3, start_ms=1_500, end_ms=2_000)
    state = spoken(wire.final("u1", 3, "南京市长江大桥", first, second)).with_audio(3_000, -20.0)
    assert " 南  长江大桥" in drawn(state, width=80).splitlines()[3]


def test_low_and_narrow_terminals_have_no_time_line() -> None:
    state = spoken(*upserts())
    for width, height in ((80, 13), (60, 24)):
        assert "0:00.00" not in drawn(state, width, height)


def test_keys_are_named_and_explained() -> None:
    view = LiveView(Console(file=io.StringIO(), width=80, height=24, force_terminal=True))
    view.keys = (*view.own_keys, Key("q", "finish", lambda: None))
    view.state = spoken(*upserts())

    def picture() -> str:
        console = Console(file=io.StringIO(), width=80, height=24)
        console.print(view.picture())
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    def press(name: str) -> None:
        next(key for key in view.own_keys if key.name == name).press()

    assert "? help · f freeze · q finish" in picture()
    press("?")
    assert "an entity and its type" in picture()
    assert "他在" not in picture()
    press("?")
    assert "他在" in picture()
    press("f")
    view.on_revision(Revision("u2", 1, "之后", True))
    assert "frozen" in picture()
    assert "之后" not in picture()
    press("f")
    assert "之后" in picture()


def test_why_there_is_silence_takes_the_place_of_the_meter() -> None:
    view = LiveView(Console(file=io.StringIO()))
    view.on_source("muted")
    assert "muted" in drawn(view.state)
    assert "░" not in drawn(view.state)
    view.on_source("")
    assert "░" in drawn(view.state)


def test_another_size_of_the_terminal_starts_with_a_clear_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    assert isinstance(console.file, io.StringIO)
    view = LiveView(console)
    view.state = spoken(*upserts())
    view.picture()
    view.picture()
    assert "\x1b[2J" not in console.file.getvalue()
    console.size = ConsoleDimensions(40, 24)
    view.picture()
    assert "\x1b[2J\x1b[H" in console.file.getvalue()


def test_live_view_leaves_the_last_picture_on_the_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    with LiveView(console) as view:
        view.on_message(wire.ready())
        view.on_revision(Revision("u1", 3, SENTENCE, True))
        view.on_message(wire.final("u1", 3, SENTENCE, ORG))
        view.on_message(wire.summary())
    assert isinstance(console.file, io.StringIO)
    assert "1 utterance, 2 entities" in console.file.getvalue()


def test_what_becomes_of_the_connection_is_told(caplog: pytest.LogCaptureFixture) -> None:
    changes = [
        ConnectionChange("silent", "ws://a", "for 1.5 s"),
        ConnectionChange("heard", "ws://a"),
        ConnectionChange("lost", "ws://a", "expected ws://a to stay, got: nothing for 5 s"),
        ConnectionChange("waiting", "", "expected a server at ws://a, got: refused", 0.5),
        ConnectionChange("waiting", "", "expected a server at ws://b, got: refused", 1.0),
        ConnectionChange("restarted", "ws://b", "2 utterances and 3.0 s of audio are sent again"),
        ConnectionChange("resumed", "ws://b", "nothing is lost"),
    ]
    out = io.StringIO()
    with PlainView(Console(file=out, width=200)) as view:
        view.on_message(wire.ready())
        statuses = []
        for change in changes:
            view.on_connection(change)
            statuses.append(view.state.status)
    assert statuses == ["live"] * 2 + ["reconnecting"] * 3 + ["live"] * 2
    assert [line.strip() for line in out.getvalue().splitlines()] == [
        "no answer from ws://a for 1.5 s",
        "ws://a answers again",
        "connection lost: expected ws://a to stay, got: nothing for 5 s",
        "no connection: expected a server at ws://a, got: refused; next attempt in 0.5 s",
        "a new session at ws://b: 2 utterances and 3.0 s of audio are sent again",
        "connected to ws://b again: nothing is lost",
    ]
    written = io.BytesIO()
    with JsonView(written) as view_of_json:
        view_of_json.on_connection(changes[2])
    assert written.getvalue() == b"", "it is no message of the server"
    assert "connection lost" in caplog.text
    assert "reconnecting" in drawn(spoken().connection_changed(changes[2]))
