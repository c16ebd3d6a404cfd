"""What holds for a command: its command line over the environment over a file over defaults."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from cnerta.models.command_line import printable
from cnerta.models.errors import ConfigError
from cnerta.streamer.commands.settings import (
    PREFIX,
    Found,
    Setting,
    read_environment,
    read_file,
    settings_of,
    toml_value,
    unknown_variables,
)

__all__ = ["CONFIG_VARIABLE", "CheckConfigOption", "ConfigOption", "Configuration"]

CONFIG_VARIABLE: Final = PREFIX + "CONFIG"
_COMMAND_LINE: Final = "command line"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What holds, and from where.

    Attributes:
        settings: What there is to set.
        found: What environment and file say.
        given: Keys of what the command line says.
        values: What holds.
        unknown: What is said of variables that nobody knows.
    """

    settings: Mapping[str, Setting]
    found: Mapping[str, Found]
    given: frozenset[str]
    values: Mapping[str, object]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, context: typer.Context) -> Configuration:
        """What holds for the command that runs.

        Raises:
            typer.BadParameter: A number is none.
        """
        settings, found = _settings_of(context), _found(context)
        given = frozenset(
            key
            for key in settings
            if getattr(context.get_parameter_source(key), "name", "") == "COMMANDLINE"
        )
        values = {key: context.params[key] for key in settings}
        for key, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                wanted = f"expected {settings[key].option} to be a number, got {value}"
                raise typer.BadParameter(wanted)
        own = {CONFIG_VARIABLE}
        unknown = tuple(unknown_variables(os.environ, settings, own))
        return cls(settings, found, given, values, unknown)

    def origin(self, key: str) -> str:
        """Where the value of a key is from, in words."""
        if key in self.given:
            return _COMMAND_LINE
        return self.found[key].origin if key in self.found else "default"

    @contextlib.contextmanager
    def naming_origins(self) -> Iterator[None]:
        """Where a value is refused that the command line did not give, say where it is from."""
        try:
            yield
        except typer.BadParameter as error:
            named = {each.lstrip("-").replace("-", "_") for each in _options_in(error)}
            from_elsewhere = [
                f"{key} is from {self.found[key].origin}"
                for key in sorted(named - self.given)
                if key in self.found
            ]
            if from_elsewhere:
                error.message = f"{error.message} ({', '.join(from_elsewhere)})"
            raise

    def lines(self) -> Iterator[str]:
        """All that holds as TOML, each key with where it is from; no secrets."""
        for key, value in self.values.items():
            if value is None:
                yield f"# {key} is not set"
            else:
                yield f"{key} = {toml_value(value)}  # {printable(self.origin(key))}"


def _options_in(error: typer.BadParameter) -> set[str]:
    hints = error.param_hint
    hinted = [hints] if isinstance(hints, str) else list(hints or ())
    return set(re.findall(r"--[\w-]+", " ".join([error.message, *hinted])))


def _settings_of(context: typer.Context) -> dict[str, Setting]:
    function = context.command.callback
    assert function is not None, "it runs"
    return settings_of(inspect.unwrap(function))


def _found(context: typer.Context) -> dict[str, Found]:
    found: dict[str, Found] = context.meta.get(__name__, {})
    return found


def _read(context: typer.Context, path: Path | None) -> Path | None:
    """Hand what file and environment say to typer, in place of defaults."""
    if context.resilient_parsing:
        return path
    settings = _settings_of(context)
    try:
        found = {} if path is None else read_file(path, settings)
        found |= read_environment(os.environ, settings)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    context.meta[__name__] = found
    context.default_map = {key: each.value for key, each in found.items()}
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar=CONFIG_VARIABLE,
        show_envvar=False,
        is_eager=True,
        callback=_read,
        help="TOML file with options as keys, such as max_sessions = 200. Variables such as "
        f"{PREFIX}MAX_SESSIONS count more, and the command line most. Also {CONFIG_VARIABLE}.",
    ),
]
"""A parameter of a command that may be configured: ``config: ConfigOption = None``."""
CheckConfigOption = Annotated[
    bool,
    typer.Option(
        "--check-config", is_eager=True, help="Print what holds and from where, and exit."
    ),
]
