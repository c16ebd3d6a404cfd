"""One request for the entities of one text, with its recording if there is one.

As JSON, or as ``multipart/form-data`` with the parts ``text``, ``audio`` and ``options``.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from cnerta.streamer.wire.messages import MAX_GLOSSARY_ENTRIES, MAX_TEXT_CHARACTERS
from cnerta.streamer.wire.parts import (
    CharacterReading,
    Entity,
    GlossaryEntry,
    MendedText,
    ModelInfo,
    TimeSource,
)

__all__ = [
    "ENTITIES_PATH",
    "BadRequestError",
    "EntitiesAnswer",
    "EntitiesError",
    "EntitiesOptions",
    "EntitiesRequest",
    "Question",
    "read_question",
]

ENTITIES_PATH: Final = "/v1/entities"
JSON_TYPE: Final = "application/json"
FORM_TYPE: Final = "multipart/form-data"
_PARTS: Final = ("text", "audio", "options")
_T = TypeVar("_T", bound=msgspec.Struct)


class BadRequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: Of HTTP.
        name: In a word.
    """

    def __init__(self, status: int, name: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name


class EntitiesOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wanted."""

    labels: Annotated[
        Annotated[list[str], Meta(max_length=64)] | None,
        Meta(description="Entity types to tell; null: all."),
    ] = None
    nested: Annotated[bool, Meta(description="False: only outermost entities.")] = True
    readings: Annotated[bool, Meta(description="Tell how characters were pronounced.")] = False
    glossary: Annotated[
        Annotated[list[GlossaryEntry], Meta(max_length=MAX_GLOSSARY_ENTRIES)],
        Meta(description="Names that are expected."),
    ] = []
    apply_suggestions: Annotated[
        bool, Meta(description="True: tell the text with the glossary's spelling, too.")
    ] = False


class EntitiesRequest(EntitiesOptions, frozen=True, kw_only=True):
    """A text, and what is wanted of it."""

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]


class EntitiesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The entities of a text."""

    text: str
    entities: list[Entity]
    characters: Annotated[
        list[tuple[int, int]],
        Meta(description="[start_ms, end_ms] of each code point of text; empty if unknown."),
    ]
    time_source: TimeSource
    audio_used: bool
    readings: list[CharacterReading]
    warnings: Annotated[list[str], Meta(description="What is wrong and did not matter.")]
    model: ModelInfo
    mended: Annotated[
        MendedText | UnsetType,
        Meta(
            description="The text with the glossary's spelling; absent unless apply_suggestions "
            "asks for it and a name is misspelt."
        ),
    ] = UNSET


class EntitiesError(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer."""

    name: Annotated[str, Meta(description="In a word, for programs.")]
    detail: Annotated[str, Meta(description='"expected X, got Y", for people.')]


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked.

    Attributes:
        request: The text, and what is wanted.
        audio: A file with its recording.
    """

    request: EntitiesRequest
    audio: bytes | None = None


def read_question(content_type: str, content: bytes) -> Question:
    """Read a request's content.

    Args:
        content_type: Its header.
        content: All of it.

    Raises:
        BadRequestError: It is none.
    """
    header = Message()
    header["Content-Type"] = content_type
    kind = header.get_content_type() if content_type else ""
    if kind == JSON_TYPE:
        return Question(_checked(_read_json(content, EntitiesRequest)))
    if kind != FORM_TYPE:
        detail = f"expected {JSON_TYPE} or {FORM_TYPE}, got {content_type[:64]!a}"
        raise BadRequestError(415, "unsupported_media_type", detail)
    boundary = header.get_boundary()
    if not boundary or not boundary.isascii():
        raise BadRequestError(400, "invalid_form", "expected a boundary, got none")
    parts = _read_form(boundary.encode(), content)
    if "text" not in parts:
        raise BadRequestError(422, "invalid_request", "expected a part named text, got none")
    options = _read_json(parts.get("options", b"{}"), EntitiesOptions)
    try:
        text = parts["text"].decode()
    except UnicodeDecodeError:
        raise BadRequestError(422, "invalid_request", "expected text in UTF-8") from None
    request = EntitiesRequest(text=text, **{f: getattr(options, f) for f in _OPTIONS})
    return Question(_checked(request), parts.get("audio"))


_OPTIONS: Final = EntitiesOptions.__struct_fields__


def _checked(request: EntitiesRequest) -> EntitiesRequest:
    if not 1 <= len(request.text) <= MAX_TEXT_CHARACTERS:
        detail = f"expected 1 to {MAX_TEXT_CHARACTERS} characters, got {len(request.text)}"
        raise BadRequestError(422, "text_too_long" if request.text else "invalid_request", detail)
    return request


def _read_json(content: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(422, "invalid_request", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(400, "not_json", f"expected JSON, got: {error}") from error


class _Form:
    """Collects the parts of a form by their names."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self.is_complete = False
        self._name = self._field = self._value = b""
        self._disposition = b""
        self._data: list[bytes] = []

    def on_part_begin(self) -> None:
        self._disposition, self._data = b"", []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def on_part_end(self) -> None:
        header = Message()
        header["Content-Disposition"] = self._disposition.decode("latin-1")
        name = header.get_param("name", header="Content-Disposition")
        if name not in _PARTS:
            detail = f"expected parts named {', '.join(_PARTS)}, got {str(name)[:32]!a}"
            raise BadRequestError(422, "invalid_request", detail)
        if name in self.parts:
            detail = f"expected one part named {name}, got another"
            raise BadRequestError(422, "invalid_request", detail)
        self.parts[str(name)] = b"".join(self._data)

    def on_end(self) -> None:
        self.is_complete = True


def _read_form(boundary: bytes, content: bytes) -> dict[str, bytes]:
    form = _Form()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_part_data": form.on_part_data,
                "on_part_end": form.on_part_end,
                "on_end": form.on_end,
            },
        )
        parser.write(content)
        parser.finalize()
    except FormParserError as error:
        raise BadRequestError(400, "invalid_form", f"expected a form, got: {error}") from error
    if not form.is_complete:
        raise BadRequestError(400, "invalid_form", "expected a form to its end, got a part")
    return form.parts
