"""Captions of Zoom and YouTube, to receivers that check what the real ones check."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.caption_outlet import CaptionOutlet
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.http_receiver import RetryPolicy
from cnerta.streamer.outputs.presenter import FoldingView
from cnerta.streamer.outputs.session_outputs import Outputs
from cnerta.streamer.outputs.youtube import YouTubeCaptions
from cnerta.streamer.outputs.zoom import ZoomCaptions
from cnerta.streamer.sources import Revision

from .. import server_messages as wire
from .caption_receivers import CaptionReceiver, YouTube, Zoom

# A machine that is busy for seconds is no reason to send again, and none to give up.
FAST = RetryPolicy(
    timeout_s=60.0, attempts=5, first_pause_s=0.01, longest_pause_s=0.05, drain_s=60.0
)
PER = wire.entity("PER", "江大桥", 2)
TEXTS = ("市长江大桥", "欢迎各位", "今天天气很好")


@pytest.fixture
def zoom() -> Iterator[Zoom]:
    made = Zoom()
    yield made
    made.close()


@pytest.fixture
def youtube() -> Iterator[YouTube]:
    made = YouTube()
    yield made
    made.close()


async def caption(
    outlet: CaptionOutlet, receiver: CaptionReceiver, *texts: str, one_by_one: bool = False
) -> None:
    """A session in which each text is final a second after the one before.

    ``one_by_one`` waits until each is shown; else those that wait for a busy sender go together.
    """
    async with Outputs(FoldingView(), [outlet]) as outputs:
        outputs.on_message(wire.ready())
        for number, text in enumerate(texts, 1):
            outputs.on_audio(bytes(2), 1_000.0 * number)
            outputs.on_revision(Revision(f"u{number}", 1, text, True))
            found = [PER] if PER.text in text else []
            outputs.on_message(wire.final(f"u{number}", 1, text, *found))
            await asyncio.sleep(0.03)
            while one_by_one and len(receiver.shown) < number:
                await asyncio.sleep(0.01)
        outputs.on_message(wire.summary())


def steady_clock() -> Callable[[], float]:
    """Seconds since 1970 that only rise: the machine's own clock may be put back."""
    began_s = time.time() - time.monotonic()
    return lambda: began_s + time.monotonic()


def outlet_to(receiver: CaptionReceiver, policy: RetryPolicy = FAST) -> CaptionOutlet:
    if isinstance(receiver, Zoom):
        return ZoomCaptions(receiver.url, Highlighter(), policy=policy)
    return YouTubeCaptions(receiver.url, Highlighter(), policy=policy, now_s=steady_clock())


async def test_zoom_shows_each_caption(zoom: Zoom) -> None:
    await caption(outlet_to(zoom), zoom, *TEXTS)
    assert "".join(zoom.shown) == "市长【江大桥】\n欢迎各位\n今天天气很好\n"
    assert not zoom.refusals
    assert zoom.asks == 1


async def test_zoom_counts_on_where_an_earlier_session_ended() -> None:
    zoom = Zoom(taken=41)
    await caption(outlet_to(zoom), zoom, TEXTS[0])
    zoom.close()
    assert zoom.numbers == [42]
    assert not zoom.refusals


async def test_zoom_that_does_not_say_where_it_is(
    zoom: Zoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoom, "asked", lambda request: zoom.answer(request, 404, "7"))
    await caption(outlet_to(zoom), zoom, TEXTS[0])
    assert zoom.numbers == [1]


async def test_youtube_shows_each_caption_at_its_time(youtube: YouTube) -> None:
    now_s = datetime.now(UTC).timestamp()
    outlet = YouTubeCaptions(youtube.url, Highlighter(), policy=FAST, now_s=lambda: now_s)
    await caption(outlet, youtube, "市长江大桥")
    ((head, text),) = [body.splitlines() for body in youtube.shown]
    assert text == "市长【江大桥】"
    moment, region = head.split(" ")
    assert region == "region:reg1#cue1"
    # The utterance is as long as the second of audio before it, and has just been said.
    began = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    assert began == pytest.approx(now_s - 1.0, abs=0.001)
    assert not youtube.refusals


async def test_youtube_breaks_lines_its_own_way(youtube: YouTube) -> None:
    await caption(outlet_to(youtube), youtube, "今天我们来认识一下，南京市市长，江大桥先生。")
    ((_, text),) = [body.splitlines() for body in youtube.shown]
    assert text.count("<br>") == 1
    assert not youtube.refusals


@pytest.mark.parametrize("kind", [Zoom, YouTube])
@pytest.mark.parametrize(
    "faults",
    [
        [503, 500],
        [400, 403, 405],  # They ask to try these again, too: the meeting may not have started.
        [-502, 0, -504],  # It was taken, but the answer got lost.
    ],
)
async def test_a_repeated_caption_keeps_its_number(
    kind: type[CaptionReceiver], faults: list[int]
) -> None:
    receiver = kind()
    receiver.faults = list(faults)
    await caption(outlet_to(receiver), receiver, *TEXTS, one_by_one=True)
    receiver.close()
    assert not receiver.refusals
    assert sorted(set(receiver.numbers)) == [1, 2, 3]
    assert receiver.numbers == sorted(receiver.numbers)
    assert len(receiver.numbers) == 3 + sum(fault != 0 for fault in faults)
    text = "".join(receiver.shown)
    assert [text.count(words) for words in ("江大桥", "欢迎各位", "天气")] == [1, 1, 1]


async def test_captions_that_never_arrive(zoom: Zoom) -> None:
    zoom.faults = [500] * 100
    policy = RetryPolicy(attempts=2, first_pause_s=0.01)
    with pytest.raises(OutputError, match="to take every caption, got 3 left over") as lost:
        await caption(outlet_to(zoom, policy), zoom, *TEXTS)
    assert "signature" not in str(lost.value)
    assert not zoom.shown


@pytest.mark.parametrize("kind", [ZoomCaptions, YouTubeCaptions])
@pytest.mark.parametrize(
    "url", ["ftp://x/secret", "secret", "http://upload.youtube.com/closedcaption?cid=secret"]
)
def test_an_address_that_is_none_or_in_clear_text(
    kind: type[ZoomCaptions | YouTubeCaptions], url: str
) -> None:
    with pytest.raises(OutputError, match=r"expected .*a caption address of") as refused:
        kind(url, Highlighter())
    assert "secret" not in str(refused.value)


def test_marks_are_two_characters_or_none() -> None:
    with pytest.raises(OutputError, match="expected two characters around a name, or none"):
        ZoomCaptions("https://x/y", Highlighter(), marks="【")
