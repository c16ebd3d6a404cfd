"""What all commands share: their version, their help, their log, and how they fail."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Final, NoReturn, TypeVar, get_type_hints

import msgspec
import typer
from rich.console import Console
from rich.logging import RichHandler
from typer.core import TyperCommand, TyperGroup

__all__ = [
    "EXIT_BROKEN_PIPE",
    "TRAINING_EXTRAS",
    "Command",
    "CommandGroup",
    "JsonLines",
    "VersionOption",
    "drop_output",
    "fail",
    "log_lines",
    "log_to_console",
    "make_app",
    "needs_extra",
    "printable",
    "version",
    "with_options",
]

PROJECT: Final = "cnerta-stream"
TRAINING_EXTRAS: Final = "cpu,train"
"""What installs all that training, exporting and scoring need."""
EXIT_BROKEN_PIPE: Final = 128 + 13  # SIGPIPE, which not every system defines

_T = TypeVar("_T")


# --- version --------------------------------------------------------------------------------------


def version() -> str:
    """Version of the installed project."""
    try:
        return importlib.metadata.version(PROJECT)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"{PROJECT} {version()}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
]
"""The last parameter of every command: ``version: VersionOption = False``."""


# --- options and help -----------------------------------------------------------------------------


class _Help:
    """Help that shows what takes a value and what does not, and that may lose its reader."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters; typer would show ``<bool>`` for a flag and ``<list[path]>`` for paths."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
            elif "list[" in (shown := _type_shown(param, ctx)):
                param.display_type = partial(_one_of, shown)
        return params

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help; where rich gives up with status 1, end as after any broken pipe."""
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc]
        except SystemExit:
            raise typer.Exit(EXIT_BROKEN_PIPE) from None


def _type_shown(param: Any, ctx: Any) -> str:
    """What help says of the values that a parameter takes; older versions of typer have no list."""
    display_type = getattr(param, "display_type", None)
    return "" if display_type is None else str(display_type(ctx))


def _one_of(shown: str, ctx: Any) -> str:
    """What help says of one value."""
    return shown.lower().replace("list[", "").replace("]", "")


class Command(_Help, TyperCommand):
    """A command."""


class CommandGroup(_Help, TyperGroup):
    """A command with commands of its own."""


class _App(typer.Typer):
    """An app whose commands have this module's help."""

    def command(self, *args: Any, **settings: Any) -> Any:
        """Register a command."""
        return super().command(*args, **{"cls": Command, **settings})


def make_app(**settings: Any) -> typer.Typer:
    """Make an app; the settings are those of `typer.Typer`."""
    ours = {"cls": CommandGroup, "add_completion": False, "pretty_exceptions_enable": False}
    return _App(**{**ours, **settings})


def with_options(
    options: Callable[..., _T],
) -> Callable[[Callable[[typer.Context, _T], None]], Callable[..., None]]:
    """Let a command take its options as one value.

    Args:
        options: A dataclass whose fields are annotated as the parameters of a command would be.

    Returns:
        A decorator for a function of the context and that value.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(options)  # type: ignore[arg-type]
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    shown = inspect.Parameter(
        "version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VersionOption
    )
    signature = inspect.Signature([context, *parameters, shown])

    def decorate(function: Callable[[typer.Context, _T], None]) -> Callable[..., None]:
        def command(*, context: typer.Context, version: bool, **given: Any) -> None:
            function(context, options(**given))

        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in [*parameters, shown]}
        command.__annotations__["context"] = typer.Context
        return command

    return decorate


# --- what is printed ------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Replace control characters one for one: a terminal must not obey a transcript."""
    return "".join(
        character if character.isprintable() or character == " " else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def log_to_console(
    level: int = logging.WARNING,
    *,
    console: Console | None = None,
    others: int | None = None,
    show_time: bool = False,
) -> None:
    """Print the log for a person who watches.

    Args:
        level: From which on this project's messages are shown.
        console: Where; None for standard error.
        others: From which on those of other packages are shown; None: the same.
        show_time: Whether to say when.
    """
    if others is not None:
        logging.getLogger("cnerta").setLevel(level)
    handler = RichHandler(
        console=console or Console(stderr=True), show_time=show_time, show_path=False
    )
    logging.basicConfig(
        level=level if others is None else others, format="%(message)s", handlers=[handler]
    )


def log_lines(level: int, *, as_json: bool = False) -> None:
    """Write the log of a service: a line a message, with its time and who says it.

    Args:
        level: From which on messages are written.
        as_json: Whether a line is an object; `JsonLines` says which.
    """
    handler = logging.StreamHandler()
    if as_json:
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class JsonLines(logging.Formatter):
    """A log record as one line of JSON.

    It has ``time`` (UTC), ``level``, ``logger`` and ``message``. What is logged with ``extra``,
    ``fields`` as a mapping, has these, too, and ``event`` among them says what happened.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **getattr(record, "fields", {}),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def fail(who: str, error: Exception, status: int = 1) -> NoReturn:
    """Say in one line why a command failed, and end it.

    Args:
        who: What the line begins with: the command, or the kind of the error.
        error: What went wrong.
        status: What the command ends with.

    Raises:
        typer.Exit: Always.
    """
    _say(who, str(error))
    raise typer.Exit(status) from None


@contextlib.contextmanager
def needs_extra(command: str, extras: str) -> Iterator[None]:
    """Where a package is missing, say in one line what installs it, and end the process.

    Args:
        command: Its name.
        extras: The extras of this project that install everything it needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "cnerta"):
            raise
        _say(
            command,
            f"expected the Python package {package}, got none: "
            f"pip install '{PROJECT}[{extras}]' installs it",
        )
        sys.exit(1)


def _say(who: str, what: str) -> None:
    Console(stderr=True).print(
        f"{who}: {printable(' '.join(what.splitlines()))}",
        style="bold red",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def drop_output() -> None:
    """Keep Python from trying to write what is left once more at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
