"""What Deepgram's clients are told of a whole file: all its utterances as one transcript.

https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec import UNSET

from cnerta.streamer.apis.deepgram_messages import (
    FileAlternative,
    FileAnswer,
    FileChannel,
    FileMetadata,
    FileResults,
    FileUtterance,
    FoundEntity,
    ModelInfo,
)
from cnerta.streamer.apis.deepgram_query import ListenQuery
from cnerta.streamer.apis.deepgram_told import SURE, model_uuid, seconds, told_entity, told_words
from cnerta.streamer.apis.deepgram_words import Word, split_words
from cnerta.streamer.wire.messages import UtteranceFinal

__all__ = ["HeardFile", "file_answer"]


@dataclass(frozen=True, slots=True)
class HeardFile:
    """A file that was listened to.

    Attributes:
        request_id: Name of the request.
        created: When it came.
        sha256: Of its content.
        duration_ms: Of its audio.
        channels: Of its audio.
        model: What answered.
        utterances: What was said, in order.
    """

    request_id: str
    created: datetime
    sha256: str
    duration_ms: float
    channels: int
    model: ModelInfo
    utterances: Sequence[UtteranceFinal]


def file_answer(heard: HeardFile, query: ListenQuery) -> FileAnswer:
    """All that is told of a file.

    Args:
        heard: What was heard.
        query: What the client asks for.
    """
    transcript = ""
    words: list[Word] = []
    entities: list[FoundEntity] = []
    utterances: list[FileUtterance] = []
    for final in heard.utterances:
        said = _words(final)
        if not said:
            continue
        entities += [told_entity(e, said, first_word=len(words)) for e in final.entities]
        words += said
        transcript += _seam(transcript, final.text) + final.text
        utterances.append(
            FileUtterance(
                start=seconds(said[0].start_ms),
                end=seconds(said[-1].end_ms),
                confidence=SURE,
                channel=0,
                transcript=final.text,
                words=told_words(said),
                id=final.utterance,
            )
        )
    alternative = FileAlternative(
        transcript=transcript,
        confidence=SURE if transcript else 0.0,
        words=told_words(words),
        entities=entities if query.entities else UNSET,
    )
    uuid = model_uuid(heard.model)
    return FileAnswer(
        metadata=FileMetadata(
            transaction_key="deprecated",
            request_id=heard.request_id,
            sha256=heard.sha256,
            created=heard.created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            duration=seconds(heard.duration_ms),
            channels=heard.channels,
            models=[uuid],
            model_info={uuid: heard.model},
        ),
        results=FileResults(
            channels=[FileChannel(alternatives=[alternative])],
            utterances=utterances if query.utterances else UNSET,
        ),
    )


def _words(final: UtteranceFinal) -> list[Word]:
    times = final.characters
    start_ms, end_ms = (times[0][0], times[-1][1]) if times else (0, 0)
    return split_words(final.text, times, start_ms, end_ms)


def _seam(before: str, after: str) -> str:
    """What stands between two utterances: a space, but nothing between Han characters and marks."""
    if not before or not after:
        return ""
    return "" if _is_wide(before[-1]) or _is_wide(after[0]) else " "


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"
