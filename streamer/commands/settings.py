"""The options of a command as settings: keys of a TOML file, and variables of the environment.

A setting is made of what the command itself says of its option: name, type, bounds, default. So an
option that is added to a command is a key and a variable from then on.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Final, Literal

import msgspec
from typer.models import OptionInfo

from cnerta.models.errors import ConfigError
from cnerta.streamer.wire.addresses import redact

__all__ = [
    "OTHER_VARIABLES",
    "PREFIX",
    "Found",
    "Setting",
    "read_environment",
    "read_file",
    "read_table",
    "redacted",
    "settings_of",
    "toml_value",
    "unknown_variables",
]

PREFIX: Final = "CNERTA_"
OTHER_VARIABLES: Final = frozenset({"CNERTA_OBS_PASSWORD", "CNERTA_TOKEN", "CNERTA_WEBHOOK_TOKEN"})
"""Variables of this project that are no options."""
_TESTS: Final = "CNERTA_PAGE_"
_SPOKEN: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_KINDS: Final[Mapping[Any, str]] = MappingProxyType(
    {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
)
# What Kubernetes tells every container of a service by the name of "cnerta".
_SERVICE_LINK: Final = re.compile(
    r"CNERTA(_\w+)?_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)"
)
_LINKED_ADDRESS: Final = re.compile(r"(tcp|udp)://\S+:\d+")
_NAMED_SECRET: Final = re.compile(
    r"\b(\w*(?:token|key|secret|password|auth)\w*=)[^,&\s]+", re.IGNORECASE
)
_HIDDEN: Final = "***"


@dataclass(frozen=True, slots=True)
class Setting:
    """One option.

    Attributes:
        name: Its key in a file.
        kind: Type of a value: bool, int, float, str, a path, or one of several words.
        is_list: Whether it may be given several times.
        least: Least value of a number.
        most: Greatest value.
        default: What holds where nobody says anything; None: nothing does.
    """

    name: str
    kind: Any
    is_list: bool = False
    least: float | None = None
    most: float | None = None
    default: Any = None

    @property
    def variable(self) -> str:
        """Its variable in the environment."""
        return PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """How it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        if typing.get_origin(self.kind) is Literal:
            one = f"one of {', '.join(typing.get_args(self.kind))}"
        else:
            one = _KINDS[self.kind] + _bounds(self.least, self.most)
        return f"a list, each {one}" if self.is_list else one

    def of_file(self, value: Any) -> Any:
        """Take a value of a TOML file, which has a type.

        Raises:
            ConfigError: It is no value of this setting.
        """
        return self._taken(value, value, is_text=False)

    def of_variable(self, text: str) -> Any:
        """Take a value of the environment. Items of a list stand between commas or blanks.

        A list may be written as in TOML, too, where its values have commas: ``["a,b", "c"]``.

        Raises:
            ConfigError: It is no value of this setting.
        """
        value: Any = text.strip()
        if self.is_list:
            return self._taken(_items(value), text, is_text=True)
        if self.kind is bool:
            value = _SPOKEN.get(value.lower(), value)
        return self._taken(value, text, is_text=True)

    def _taken(self, value: Any, given: Any, *, is_text: bool) -> Any:
        kind: Any = str if self.kind is Path else self.kind
        if kind in (int, float):
            kind = Annotated[kind, msgspec.Meta(ge=self.least, le=self.most)]
        try:
            taken = msgspec.convert(value, list[kind] if self.is_list else kind, strict=not is_text)
        except msgspec.ValidationError:
            taken = None
        if taken is None or (isinstance(taken, float) and not math.isfinite(taken)):
            raise ConfigError(f"expected {self.expected}, got {redacted(_shown(given))}")
        return taken


@dataclass(frozen=True, slots=True)
class Found:
    """A value that somebody gave.

    Attributes:
        value: What it is.
        origin: Where from, in words.
    """

    value: Any
    origin: str


def settings_of(command: Callable[..., Any]) -> dict[str, Setting]:
    """The options of a command, by key.

    Those that are read before all others, such as ``--version``, are not among them: they say what
    the command does, not how.

    Args:
        command: A function whose parameters are annotated for typer.
    """
    made = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        infos = [
            each
            for each in getattr(parameter.annotation, "__metadata__", ())
            if isinstance(each, OptionInfo)
        ]
        if infos and not infos[0].is_eager:
            made[parameter.name] = _setting(parameter, infos[0])
    return made


def _setting(parameter: inspect.Parameter, info: OptionInfo) -> Setting:
    kind = typing.get_args(parameter.annotation)[0]
    if NoneType in typing.get_args(kind):
        (kind,) = (each for each in typing.get_args(kind) if each is not NoneType)
    is_list = typing.get_origin(kind) is list
    if is_list:
        (kind,) = typing.get_args(kind)
    default = None if parameter.default is inspect.Parameter.empty else parameter.default
    return Setting(parameter.name, kind, is_list, info.min, info.max, default)


def read_file(path: Path, settings: Mapping[str, Setting]) -> dict[str, Found]:
    """What a TOML file says, by key.

    Raises:
        ConfigError: It cannot be read, has a key that is none, or a value that is none of its key.
    """
    try:
        with path.open("rb") as opened:
            table = tomllib.load(opened)
    except OSError as error:
        raise ConfigError(f"expected a TOML file at {path}, got: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected TOML in {path}, got: {error}") from error
    return read_table(table, settings, str(path))


def read_table(
    table: Mapping[str, Any], settings: Mapping[str, Setting], origin: str
) -> dict[str, Found]:
    """What a table says, by key.

    Args:
        table: Values that have a type.
        settings: What there is.
        origin: Where it is from, in words.

    Raises:
        ConfigError: It has a key that is none, or a value that is none of its key.
    """
    found = {}
    for key, value in table.items():
        setting = settings.get(key)
        if setting is None:
            raise ConfigError(
                f"{origin}: expected a key of the options, got {key}{_likely(key, settings)}"
            )
        try:
            found[key] = Found(setting.of_file(value), origin)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {key}: {error}") from None
    return found


def read_environment(
    environment: Mapping[str, str], settings: Mapping[str, Setting]
) -> dict[str, Found]:
    """What variables say, by key. An empty one says nothing.

    Raises:
        ConfigError: A value is none of its setting.
    """
    found = {}
    for key, setting in settings.items():
        text = environment.get(setting.variable, "")
        if not text.strip() or _is_service_link(setting.variable, text):
            continue
        try:
            found[key] = Found(setting.of_variable(text), setting.variable)
        except ConfigError as error:
            raise ConfigError(f"{setting.variable}: {error}") from None
    return found


def unknown_variables(
    environment: Mapping[str, str], settings: Mapping[str, Setting], own: Iterable[str] = ()
) -> Iterator[str]:
    """Say of each variable with our prefix that is no setting what was expected.

    Args:
        environment: All variables.
        settings: What there is.
        own: Other variables that the command knows.
    """
    known = {setting.variable for setting in settings.values()} | OTHER_VARIABLES | set(own)
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable.startswith(_TESTS):
            continue
        if variable in known:
            if _is_service_link(variable, text):
                yield (
                    f"{variable}: expected a port, got what Kubernetes says of a service; it is "
                    "passed over. A pod with enableServiceLinks: false has none"
                )
        elif not _is_service_link(variable, text):
            yield (
                f"expected {PREFIX}… to be a variable of an option, got {variable}"
                f"{_likely(variable, known)}"
            )


def _is_service_link(variable: str, text: str) -> bool:
    """Whether it is of Kubernetes, which has CNERTA_PORT for a service of the name of cnerta."""
    if _SERVICE_LINK.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and _LINKED_ADDRESS.fullmatch(text) is not None


def redacted(text: str) -> str:
    """A value without what must stay secret in it: users of addresses, tokens, passwords."""
    return _NAMED_SECRET.sub(rf"\1{_HIDDEN}", redact(text))


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(redacted(str(value)), ensure_ascii=False)


def _items(text: str) -> object:
    if not text.startswith("["):
        return [item for item in re.split(r"[\s,]+", text) if item]
    try:
        written = tomllib.loads(f"items = {text}")
    except tomllib.TOMLDecodeError:
        return None
    return written["items"] if len(written) == 1 else None


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    if least is not None:
        return f" of {least:g} or more"
    return "" if most is None else f" of {most:g} or less"


def _likely(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), list(known), 1)
    return f": is {near[0]} meant?" if near else ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    return repr(value)
