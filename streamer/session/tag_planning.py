"""What the tagger is to be given for a revision: its text and the frames it is answered from."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from cnerta.models.runtime.bundle import Bundle
from cnerta.streamer.session.audio_track import AudioTrack
from cnerta.streamer.session.encoder_buffer import Sought
from cnerta.streamer.session.names.glossary import Glossary
from cnerta.streamer.session.placement import AudioPlacement
from cnerta.streamer.session.revision import PendingRevision
from cnerta.streamer.session.voice_activity import voiced_range
from cnerta.streamer.session.work import TagWork

__all__ = ["plan_tagging"]

_PIECE: Final = 128
"""So much of a text that is too long for the model is tagged at a time, so that others' texts get
their turn in between."""


def plan_tagging(
    revision: PendingRevision,
    bundle: Bundle,
    audio: AudioTrack,
    placement: AudioPlacement,
    *,
    glossary: Glossary | None,
    wants_readings: bool,
) -> TagWork | Sought:
    """The work for a revision, or the frames that have to be encoded for it first.

    Args:
        revision: Whose text is normalised.
        bundle: The model.
        audio: The stream's audio.
        placement: Where the revision's audio is.
        glossary: Names to look for.
        wants_readings: Tell how characters with several pronunciations were read.
    """
    text = revision.normalised.text
    none = np.zeros((0, bundle.geometry.width), np.float32)
    work = TagWork(
        text,
        none,
        0,
        wants_readings=wants_readings,
        glossary=glossary,
        is_alone=revision.failures > 0,
    )
    if len(text) > bundle.max_characters:
        begin = sum(piece.length for piece in revision.pieces)
        return replace(work, text=text[begin : begin + min(_PIECE, bundle.max_characters)])
    if not text:
        return work
    start, end = placement.frames_of(revision)
    start = max(start, audio.first)
    work = replace(work, first_frame=start)
    levels = audio.levels(start, end)
    # Each character needs a frame of its own, else this audio cannot be of this text.
    is_text_only = revision.scope == "none" or bundle.audio_use == "none"
    if is_text_only or len(levels) < len(text):
        return work
    first, last = start, start + len(levels)
    if revision.scope == "unassigned" or not revision.has_times:
        voiced = voiced_range(levels, len(text))
        if voiced[1] - voiced[0] >= len(text):
            first, last = start + voiced[0], start + voiced[1]
    sought = Sought(revision.message.utterance, revision.is_final, start, first, last)
    window = audio.window(sought)
    if window is None:
        return sought
    if len(window.frames) < len(text):
        return work
    return replace(
        work,
        frames=window.frames,
        first_frame=window.first,
        end_frame=start + len(levels) if window.end == last else window.end,
        levels=audio.levels(window.first, window.end),
    )
