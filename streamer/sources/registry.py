"""Finds a transcript source by name: those that come along, and those of installed packages."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Final

from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources.base import TranscriptSource
from cnerta.streamer.sources.options import parse_source

__all__ = ["BUILT_IN", "DEFAULT_RECOGNISER", "ENTRY_POINT_GROUP", "make_transcript_source"]

ENTRY_POINT_GROUP = "cnerta.transcript_sources"
DEFAULT_RECOGNISER: Final = "sherpa-onnx"
"""For a microphone without anything else."""

# Each in a module of its own, imported when it is wanted: some need packages that few have.
BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "assemblyai": "remote.assemblyai:connect_assemblyai",
        "deepgram": "remote.deepgram:connect_deepgram",
        "faster-whisper": "whisper:WhisperTranscript",
        "funasr": "remote.funasr:connect_funasr",
        "funasr-realtime": "remote.funasr_realtime:connect_funasr_realtime",
        "gladia": "remote.gladia:connect_gladia",
        "json": "remote.json_server:connect_json_server",
        "lines": "lines:LineTranscript",
        "openai-realtime": "remote.openai_realtime:connect_openai_realtime",
        "rough": "rough:RoughTranscript",
        "sherpa-onnx": "sherpa:SherpaTranscript",
        "sherpa-server": "remote.sherpa_server:connect_sherpa_server",
        "soniox": "remote.soniox:connect_soniox",
        "speechmatics": "remote.speechmatics:connect_speechmatics",
        "vllm-realtime": "remote.vllm_realtime:connect_vllm_realtime",
        "vosk": "remote.vosk:connect_vosk",
    }
)
"""Name of each source that comes along, and where in this package it is made."""


def make_transcript_source(text: str) -> TranscriptSource:
    """Make the source that ``--source`` names, as in ``vosk:ws://127.0.0.1:2700,retries=0``.

    Args:
        text: ``NAME[:[WHERE][,key=value …]]``. An installed package's source of that name, found in
            the entry point group, goes before one that comes along.

    Raises:
        TranscriptError: There is no such source, or it takes no such options; or whatever it raises
            itself where it cannot be made.
    """
    name, where, options = parse_source(text)
    make = _find(name)
    given = () if where is None else (where,)
    try:
        inspect.signature(make).bind(*given, **options)
    except TypeError as error:
        raise TranscriptError(f"expected options that {name} takes, got: {error}") from error
    return make(*given, **options)


def _find(name: str) -> Callable[..., TranscriptSource]:
    installed = entry_points(group=ENTRY_POINT_GROUP)
    make: Callable[..., TranscriptSource]
    for entry_point in installed:
        if entry_point.name == name:
            make = entry_point.load()
            return make
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        make = getattr(importlib.import_module(f"cnerta.streamer.sources.{module}"), attribute)
        return make
    names = ", ".join(sorted({*BUILT_IN, *(entry_point.name for entry_point in installed)}))
    raise TranscriptError(f"expected a transcript source, got {name!r}; there are: {names}")
