"""Where transcripts come from: one small interface, and what is behind it.

A source is an object with one method. It is handed the audio as it is streamed and yields a
`Revision` whenever the transcript changes. A recogniser of your own fits in twenty lines::

    class MyRecogniser:
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            recogniser = Recogniser(audio.format.sample_rate, audio.format.channels)
            utterance = 1
            count = 0
            async for block in audio.blocks():  # raw bytes, as long as there is audio
                text, ended = await asyncio.to_thread(recogniser.feed, block)
                if text:
                    count += 1
                    yield Revision(f"u{utterance}", count, text, final=ended)
                if ended:
                    utterance, count = utterance + 1, 0

and is found by name when its package has an entry point that makes one::

    [project.entry-points."cnerta.transcript_sources"]
    my-recogniser = "my_package:MyRecogniser"

With ``--source my-recogniser:models/zh,beam=4`` that is called as ``MyRecogniser("models/zh",
beam="4")``. `MonoAudio` brings the audio to the rate that a recogniser wants.

All times are milliseconds on the stream's audio clock, which counts samples and starts at 0.
"""

from __future__ import annotations

from cnerta.streamer.sources.base import LiveAudio, Revision, TranscriptSource
from cnerta.streamer.sources.lines import LineTranscript
from cnerta.streamer.sources.mono_audio import MonoAudio
from cnerta.streamer.sources.registry import ENTRY_POINT_GROUP, make_transcript_source
from cnerta.streamer.sources.timed import RevisionPace, TimedLine, TimedTranscript, read_timed_lines

__all__ = [
    "ENTRY_POINT_GROUP",
    "LineTranscript",
    "LiveAudio",
    "MonoAudio",
    "Revision",
    "RevisionPace",
    "TimedLine",
    "TimedTranscript",
    "TranscriptSource",
    "make_transcript_source",
    "read_timed_lines",
]
