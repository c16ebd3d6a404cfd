"""The options of ``cnerta-stream`` as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from cnerta.streamer.outputs.masking import DEFAULT_SIGN
from cnerta.streamer.outputs.plain_marks import DEFAULT_MARKS
from cnerta.streamer.wire.messages import MAX_HOLD_MS

__all__ = ["MASKED_HOLD_MS", "SERVER_SOURCE", "StreamArguments"]

SERVER_SOURCE: Final = "server"
"""In place of a source's name: the server that is connected to has a recogniser of its own."""

MASKED_HOLD_MS: Final = 2_000
"""How long text is held back where names are hidden and nothing else was asked for."""

_OUTPUTS_PANEL: Final = "Captions and other outputs"


@dataclass(frozen=True, kw_only=True)
class StreamArguments:
    """What was asked for; the help of each option says what it means."""

    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="AUDIO", help="Stream this audio file."),
    ] = None
    mic: Annotated[bool, typer.Option("--mic", "-m", help="Stream the microphone.")] = False
    transcript: Annotated[
        str | None,
        typer.Option(
            "--transcript",
            "-t",
            metavar="TEXT",
            help="With --file: what is said. It is sent as a live recogniser would, growing with "
            "the audio; as its times are not known, it is spread evenly.",
        ),
    ] = None
    transcript_file: Annotated[
        Path | None,
        typer.Option(
            "--transcript-file",
            metavar="LINES",
            help="With --file: what is said when, one utterance a line (see below); - for standard "
            "input.",
        ),
    ] = None
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:WHERE",
            help="Who makes the transcript: a recogniser in this process or on a server, one that "
            "an installed package offers, or lines (see below).",
        ),
    ] = None
    connect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Use a server, as in ws://127.0.0.1:8765. Several, with commas or the option "
            "again, take each other's place. Without this the model runs in this process.",
        ),
    ] = None
    reconnect_s: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="With --connect: how long to look for a way back after a disconnect; 0: not at "
            "all.",
        ),
    ] = 60.0
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of a model, one that comes along (fast, accurate), or hf:OWNER/NAME.",
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|INDEX", help="With --mic: which one, by number or part of its name."
        ),
    ] = None
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="List the microphones and exit.")
    ] = False
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime/--fast",
            help="With --file: at the pace of speech, or as fast as it is taken.",
        ),
    ] = False
    labels: Annotated[
        str | None,
        typer.Option(metavar="PER,LOC,…", help="Only entities of these types."),
    ] = None
    nested: Annotated[
        bool,
        typer.Option("--nested/--flat", help="Entities inside entities, or only outermost ones."),
    ] = True
    readings: Annotated[
        bool,
        typer.Option(
            "--readings", help="Tell how characters with several pronunciations were read."
        ),
    ] = False
    glossary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names to expect, a line each: name<TAB>label, and <TAB>pinyin if it is read "
            "otherwise. They are found sooner, also where they are misspelt.",
        ),
    ] = None
    apply_suggestions: Annotated[
        bool,
        typer.Option(
            "--apply-suggestions",
            help="With --glossary: write names that were misspelt as the glossary does, marked as "
            "mended.",
        ),
    ] = False
    hold_ms: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_HOLD_MS,
            metavar="MS",
            help="Show and send text only when the names in it are settled, or this much later.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="PER,LOC,…",
            help="Hide names of these types in all that is shown, written and sent; text is held "
            "back for 2000 ms unless --hold-ms says otherwise.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    mask_sign: Annotated[
        str,
        typer.Option(
            metavar="SIGN",
            help="With --mask: what stands in the place of each character of a name.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = DEFAULT_SIGN
    json: Annotated[
        bool,
        typer.Option("--json", help="Print every server event as one line of JSON, nothing else."),
    ] = False
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write captions while the session runs: FILE.vtt, .styled.vtt (with "
            "colours), .srt, .ttml, .metadata.vtt (JSON for each cue), .rttm (list of entities) or "
            ".jsonl (events). May be given several times; files that are there are replaced.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    obs_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the newest lines in a text file, for a text source of OBS.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    obs: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send the newest lines to OBS, as in ws://127.0.0.1:4455 (password in "
            "CNERTA_OBS_PASSWORD).",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    obs_source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --obs: the text source that shows them. Without this they are captions of "
            "the stream, which have Latin letters only.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    marks: Annotated[
        str,
        typer.Option(
            "--marks",
            "--obs-marks",
            metavar="PAIR",
            help="What stands around names in OBS, Zoom and YouTube, two characters; '' for "
            "nothing.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = DEFAULT_MARKS
    zoom: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send captions to a Zoom meeting: the API token that its host copies for a "
            "captioning service.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    youtube: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send captions to a YouTube live stream: the address under its closed captions, "
            "with https://.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    hls: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write captions as HLS subtitles: captions.m3u8 and WebVTT segments.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    hls_mpeg_time: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**33 - 1,
            metavar="TICKS",
            help="With --hls: time stamp of the video where the audio begins, in 1/90000 s.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = 0
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="POST the events as JSON to this address (token in CNERTA_WEBHOOK_TOKEN).",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = None
    name_speakers: Annotated[
        bool,
        typer.Option(
            "--name-speakers",
            help="Write who speaks before the words, in captions and in the terminal, where the "
            "transcript says so.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = False
    highlight_share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Highlight at most this share of all characters, names that are new first: 0.05 "
            "to 0.15 reads best. Everything is still listed.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = 1.0
    first_only: Annotated[
        bool,
        typer.Option(
            "--first-occurrence-only",
            help="Highlight a name only where it comes up first.",
            rich_help_panel=_OUTPUTS_PANEL,
        ),
    ] = False
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="RECORD the session: audio, transcripts and messages, for cnerta-stream replay "
            "and inspect. Not with --connect: there the server records.",
        ),
    ] = None
    record_limit_mb: Annotated[
        int, typer.Option(min=1, metavar="MB", help="With --record: most that is kept.")
    ] = 1024
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what happens, on standard error.")
    ] = False

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the servers, the preferred first."""
        listed = ",".join(self.connect or ()).split(",")
        return tuple(url.strip() for url in listed if url.strip())

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            typer.BadParameter: They do.
        """
        if (self.file is not None) == self.mic:
            got = "both" if self.mic else "neither"
            raise typer.BadParameter(f"expected one of --file and --mic, got {got}")
        if self.mic and (self.transcript is not None or self.transcript_file is not None):
            raise typer.BadParameter(
                "expected --transcript and --transcript-file with --file, got them with --mic: "
                "pipe or type the transcript on standard input"
            )
        texts = (self.transcript, self.transcript_file, self.source)
        if sum(given is not None for given in texts) > 1:
            raise typer.BadParameter(
                "expected one of --transcript, --transcript-file and --source, got several"
            )
        if self.source == SERVER_SOURCE and not self.connect:
            raise typer.BadParameter(
                f"expected --connect with --source {SERVER_SOURCE}: the recogniser of that server "
                "writes the transcript"
            )
        if self.connect is not None and not self.servers:
            raise typer.BadParameter("expected an address with --connect, got none")
        if self.connect is not None and self.bundle is not None:
            raise typer.BadParameter(
                "expected --bundle without --connect, got both: a server has its own model"
            )
        if self.device is not None and not self.mic:
            raise typer.BadParameter("expected --device with --mic, got it without")
        if self.apply_suggestions and self.glossary is None:
            raise typer.BadParameter("expected --apply-suggestions with --glossary, got it without")
        if self.mask is None and self.mask_sign != DEFAULT_SIGN:
            raise typer.BadParameter("expected --mask-sign with --mask, got it without")
        if self.mask is not None and (self.labels is not None or not self.nested):
            raise typer.BadParameter(
                "expected --mask without --labels and --flat: what they leave out is not hidden"
            )
        if self.hls_mpeg_time and self.hls is None:
            raise typer.BadParameter("expected --hls-mpeg-time with --hls, got it without")
        if self.record is not None and self.connect is not None:
            raise typer.BadParameter(
                "expected --record without --connect, got both: the server records, as "
                "cnerta-serve --record"
            )
