"""Writes the reference pages that are made from the code; ``make docs`` runs it.

A test fails when a page and the code differ.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec
import typer
from typer.models import ArgumentInfo, ParameterInfo

from cnerta.models import config
from cnerta.streamer.access.admission import AccessOptions
from cnerta.streamer.access.callers import Quota
from cnerta.streamer.commands.configuration import CONFIG_VARIABLE
from cnerta.streamer.commands.serve import serve
from cnerta.streamer.commands.settings import OTHER_VARIABLES, settings_of, toml_value
from cnerta.streamer.serving.http.deepgram_file import FILE_LIMITS
from cnerta.streamer.serving.http.entities import ENTITIES_LIMITS
from cnerta.streamer.serving.parking import ParkingOptions
from cnerta.streamer.serving.server import ServerOptions
from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.wire import messages
from cnerta.streamer.wire import parts as wire_parts
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.examples import EXAMPLES
from cnerta.train import recipe

if __package__:
    from .meanings import MEANINGS
    from .pages import ROOT
else:  # Run as a program.
    from meanings import MEANINGS
    from pages import ROOT

__all__ = ["MADE", "REFERENCE", "REFERENCE_PAGES", "options_of_commands", "write_all"]

MADE: Final = "<!-- Made from the code by `make docs`; change the code instead. -->"
REFERENCE: Final = ROOT / "docs" / "reference"


# --- commands -------------------------------------------------------------------------------------


class _Called(BaseException):
    """A command has handed itself to typer."""

    def __init__(self, app: typer.Typer) -> None:
        self.app = app


def application_of(target: str, arguments: Sequence[str] = ()) -> typer.Typer:
    """What a console script hands to typer.

    Args:
        target: ``module:function``, as in the package's entry points.
        arguments: Of the command line, where they decide which application it is.
    """
    module, _, function = target.partition(":")
    main: Callable[[], None] = getattr(importlib.import_module(module), function)

    def called(app: typer.Typer, *_: object, **__: object) -> None:
        raise _Called(app)

    with (
        mock.patch.object(typer.Typer, "__call__", called),
        mock.patch.object(sys, "argv", [target, *arguments]),
    ):
        try:
            main()
        except _Called as caught:
            return caught.app
    raise AssertionError(f"expected {target} to run a typer application")


def _commands() -> Iterator[tuple[str, Any]]:
    """Every command a person can type: its name, and what typer knows of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for script, target in project["scripts"].items():
        yield from _flattened(script, application_of(target))
        if script == "cnerta-stream":
            # Those of recorded sessions are told apart by the first word.
            for word in ("replay", "inspect"):
                yield from _flattened(script, application_of(target, [word]))


def _flattened(script: str, app: typer.Typer) -> Iterator[tuple[str, Any]]:
    callback = app.registered_callback
    if callback is not None and callback.callback is not None:
        yield script, callback
    elif len(app.registered_commands) == 1:
        yield script, app.registered_commands[0]
        return
    for each in app.registered_commands:
        assert each.callback is not None
        yield f"{script} {each.name or each.callback.__name__.replace('_', '-')}", each


def options_of_commands() -> dict[str, set[str]]:
    """Every command's options, as they are written."""
    found = {}
    for name, command in _commands():
        hints = typing.get_type_hints(command.callback, include_extras=True)
        rows = [_parameter(each, hints[each], None) for each in hints if each != "return"]
        found[name] = {
            option for row in rows if row for option in re.findall(r"`(-[\w-]+)`", row[0])
        }
    return found


def commands_page() -> str:
    """Every command with every option."""
    parts = [
        "# Commands",
        MADE,
        "Every command with every option. `COMMAND --help` prints the same. An option that takes "
        "several values is given several times.",
    ]
    for name, command in dict(_commands()).items():
        text = command.help if isinstance(command.help, str) else command.callback.__doc__
        parts += [f"## {name}", _plain(text or "")]
        hints = typing.get_type_hints(command.callback, include_extras=True)
        signature = inspect.signature(command.callback).parameters.values()
        rows = [_parameter(each.name, hints[each.name], each.default) for each in signature]
        parts.append(_table(("option", "default", "meaning"), [row for row in rows if row]))
        if isinstance(command.epilog, str):
            parts.append(_plain(command.epilog))
    return _page(parts)


def _parameter(name: str, hint: Any, default: Any) -> tuple[str, ...]:
    """A row: how it is written, its default, what it means; none for what typer brings itself."""
    infos = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, ParameterInfo)]
    if not infos:
        return ()
    info = infos[0]
    kind = typing.get_args(hint)[0]
    kinds = [k for k in typing.get_args(kind) or (kind,) if k is not type(None)]
    if isinstance(info, ArgumentInfo):
        required = "required" if default is inspect.Parameter.empty else ""
        return f"`{info.metavar or name.upper()}`", required, _cell(info.help or "")
    # In an annotation what is given first, the longest name, lands in typer's `default`.
    first = [info.default] if isinstance(info.default, str) else []
    declared = [*first, *(info.param_decls or ())]
    option = name.replace("_", "-")
    names = [n for n in declared if n.startswith("-")] or [f"--{option}"]
    if kinds == [bool] and not declared:
        names = [f"--{option}/--no-{option}"]
    opposite = [n.partition("/")[2] for n in names if "/" in n]
    written = ", ".join(f"`{n}`" for spelled in names for n in spelled.split("/"))
    if kinds != [bool]:
        written += f" {_value(info, kind)}"
    return written, _default(info, default, names, opposite), _cell(info.help or "")


def _value(info: Any, kind: Any) -> str:
    if info.metavar:
        return f"`{info.metavar}`".replace("|", "\\|")
    inner = [k for k in typing.get_args(kind) if k is not type(None)]
    if typing.get_origin(kind) is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in inner)
    if typing.get_origin(kind) is tuple:
        return " ".join(_value(info, each) for each in inner)
    if inner:
        return _value(info, inner[0])
    if issubclass(kind, Enum):
        return " \\| ".join(f"`{member.value}`" for member in kind)
    return {Path: "`PATH`", int: "`INTEGER`", float: "`NUMBER`", str: "`TEXT`"}[kind]


def _default(info: Any, default: Any, names: Sequence[str], opposite: Sequence[str]) -> str:
    told = re.search(r"\\?\[default: (.*?)\]", info.help or "")
    if told:
        return told[1]
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(default, bool):
        on = names[0].partition("/")[0]
        return f"`{on}`" if default else (f"`{opposite[0]}`" if opposite else "")
    if default in (None, "", ()) or default == Path():
        return "this folder" if default == Path() else ""
    if isinstance(default, tuple):
        return f"`{' '.join(map(str, default))}`"
    return f"`{getattr(default, 'value', default)}`"


# --- configuration --------------------------------------------------------------------------------


def configuration_page() -> str:
    """Every option of the server as a key of its file and as a variable."""
    rows = []
    for key, setting in settings_of(serve).items():
        default = "" if setting.default is None else f"`{toml_value(setting.default)}`"
        rows.append((f"`{key}`", f"`{setting.variable}`", setting.expected, default))
    others = ", ".join(f"`{name}`" for name in sorted(OTHER_VARIABLES))
    return _page(
        [
            "# Configuration",
            MADE,
            "Every option of [`cnerta-serve`](commands.md#cnerta-serve), which says what it means, "
            "as a key of the TOML file that `--config` names and as a variable of the environment. "
            "[How to operate a server](../how-to/operations.md#configuration) shows both.",
            _table(("key", "variable", "value", "default"), rows),
            f"The file itself may be named by `{CONFIG_VARIABLE}`. Other variables of this project "
            f"are no options: {others}.",
        ]
    )


# --- recipes --------------------------------------------------------------------------------------


def recipes_page() -> str:
    """Every key of a recipe, from the docstrings of the values it becomes."""
    parts = [
        "# Recipe keys",
        MADE,
        "A recipe is a TOML file. The keys below are all there are: an unknown key is an error. "
        "[How to train](../how-to/train.md) shows recipes at work.",
    ]
    tables: list[tuple[str, type[msgspec.Struct]]] = [
        ("Top of the file", recipe.Recipe),
        ("`[data.NAME]`", recipe.Source),
        ("`[[stages]]`", recipe.Stage),
        ("`[augmentation]`", recipe.Augmentation),
        ("`[model]`", config.ModelConfig),
        ("`[model.text]`", config.TextConfig),
        ("`[model.acoustic]`", config.AcousticConfig),
        ("`[model.fusion]`", config.FusionConfig),
        ("`[model.ctc]`", config.CtcConfig),
        ("`[model.gazetteer]`", config.GazetteerConfig),
    ]
    for heading, struct in tables:
        described = _attributes(struct)
        parts += [f"## {heading}", _plain(_summary(struct))]
        hints = typing.get_type_hints(struct, include_extras=True)
        rows = [
            (f"`{field.name}`", _type_name(hints[field.name]), _field_default(field),
             described[field.name] if field.name in described else _own_table(field.name))
            for field in msgspec.structs.fields(struct)
        ]  # fmt: skip
        parts.append(_table(("key", "type", "default", "meaning"), rows))
    parts += ["## Recipes of the package", _shipped_recipes()]
    return _page(parts)


def _own_table(name: str) -> str:
    return f"See the table `[model.{name}]`." if name != "labels" else "`nested` or `flat` labels."


def _shipped_recipes() -> str:
    rows = []
    for name, file in recipe.recipe_files().items():
        path = ROOT / "train" / "recipes" / file
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        extends = f"`{table['extends']}`" if "extends" in table else ""
        rows.append((f"`{name}`", extends, _cell(table.get("source", ""))))
    return _table(("recipe", "extends", "source"), rows)


def _field_default(field: Any) -> str:
    if field.default is not msgspec.NODEFAULT:
        default = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    else:
        return "required"
    if isinstance(default, msgspec.Struct) or default in ("", {}, [], None):
        return ""
    return f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


# --- messages -------------------------------------------------------------------------------------


def messages_page() -> str:
    """Every message with its fields and an example."""
    parts = [
        "# Messages",
        MADE,
        "Every message of the [protocol](protocol.md), with its fields and an example. A running "
        "server describes the same at `/asyncapi.json`. The examples are broken into lines for "
        "reading; on the wire a message is one text frame.",
        "## From the client",
        "Beside these, binary frames carry audio in the format that `session.start` names.",
    ]
    parts += [part for each in messages.CLIENT_MESSAGES for part in _message(each)]
    parts.append("## From the server")
    parts += [part for each in messages.SERVER_MESSAGES for part in _message(each)]
    parts.append("## Parts of messages")
    for part in _parts_used():
        parts += [f"### {part.__name__}", _plain(_summary(part)), _fields_table(part)]
    return _page(parts)


def _message(struct: type[msgspec.Struct]) -> list[str]:
    tag = str(struct.__struct_config__.tag)
    example = msgspec.json.format(encode(EXAMPLES[tag]), indent=2).decode()
    parts = [f"### {tag}", _plain(_summary(struct))]
    if struct.__struct_fields__:
        parts.append(_fields_table(struct))
    return [*parts, f"```json\n{_compact(example)}\n```"]


def _compact(text: str) -> str:
    """JSON with what is short on one line."""

    def join(found: re.Match[str]) -> str:
        one = re.sub(r"\s*\n\s*", " ", found[0])
        return one if len(one) <= 96 else found[0]

    for _ in range(3):
        text = re.sub(r"\[[^\[\]]*\]|\{[^{}]*\}", join, text)
    return text


def _parts_used() -> list[type[msgspec.Struct]]:
    """Structs inside messages, in the order of first use."""
    found: list[type[msgspec.Struct]] = []
    waiting = [*messages.CLIENT_MESSAGES, *messages.SERVER_MESSAGES]
    while waiting:
        struct = waiting.pop(0)
        for hint in typing.get_type_hints(struct, include_extras=True).values():
            for inner in _structs(hint):
                if inner not in found:
                    found.append(inner)
                    waiting.append(inner)
    return found


def _structs(hint: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for inner in typing.get_args(hint):
        yield from _structs(inner)


def _fields_table(struct: type[msgspec.Struct]) -> str:
    hints = typing.get_type_hints(struct, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        own = MEANINGS.get(f"{struct.__name__}.{field.name}")
        meaning = own or _meta(hint) or MEANINGS.get(field.name, "")
        assert meaning, f"{struct.__name__}.{field.name} has no description"
        rows.append((f"`{field.name}`", _wire_type(hint), _wire_default(field), _cell(meaning)))
    return _table(("field", "type", "if left out", "meaning"), rows)


def _wire_default(field: Any) -> str:
    if field.default is msgspec.UNSET:
        return "absent"
    if field.default is not msgspec.NODEFAULT:
        default = field.default
        if isinstance(default, msgspec.Struct):
            return "its defaults"
        return f"`{msgspec.json.encode(default).decode()}`"
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{msgspec.json.encode(field.default_factory()).decode()}`"
    return "required"


def _meta(hint: Any) -> str:
    """The first description in a type, from outside in."""
    for each in getattr(hint, "__metadata__", ()):
        if isinstance(each, msgspec.Meta) and each.description:
            return each.description
    for inner in typing.get_args(hint):
        if found := _meta(inner):
            return found
    return ""


_WIRE: Final = {
    int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null",
}  # fmt: skip


def _wire_type(hint: Any) -> str:
    """A type as JSON has it."""
    if hasattr(hint, "__metadata__"):
        return _wire_type(typing.get_args(hint)[0]) + _bounds(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in inner)
    if origin in (list, tuple):
        items = ", ".join(_wire_type(each) for each in inner if each is not Ellipsis)
        return f"list of {items}" if origin is list else f"[{items}]"
    if inner:
        kinds = [_wire_type(each) for each in inner if each is not msgspec.UnsetType]
        return " or ".join(kinds)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return _WIRE[hint]


def _bounds(hint: Any) -> str:
    bounds = []
    for meta in hint.__metadata__:
        low, high = meta.ge, meta.le
        if high is not None and high >= 2**53 - 1:
            high = None
        if low is not None and high is not None:
            bounds.append(f"{low} to {high}")
        elif low is not None:
            bounds.append(f"{low} or more")
        if meta.max_length is not None:
            bounds.append(f"{meta.min_length or 0} to {meta.max_length} long")
    return f", {', '.join(bounds)}" if bounds else ""


# --- limits ---------------------------------------------------------------------------------------


def limits_page() -> str:
    """What one connection and one session may hold."""
    parts = [
        "# Limits",
        MADE,
        "What the server takes from one connection, and what one session may hold. "
        "`session.ready` tells a client the limits that concern it "
        "([Limits](messages.md#limits)). `cnerta-serve` changes some of them "
        "([commands](commands.md#cnerta-serve)).",
        "## A connection",
        _limits_table(ConnectionLimits()),
        "## A session",
        _limits_table(SessionLimits()),
        "## The server",
        _limits_table(ServerOptions()),
        "## A request for the entities of one text",
        _limits_table(ENTITIES_LIMITS),
        "## A file for Deepgram's clients",
        _limits_table(FILE_LIMITS),
        "## Sessions without a connection",
        _limits_table(ParkingOptions()),
        "## Who may connect",
        _limits_table(AccessOptions()),
        "## A token",
        "What a [file of tokens](../how-to/operations.md#tokens) may say of each; no bound unless "
        "it does.",
        _table(
            ("key", "meaning"),
            [(f"`{name}`", meaning) for name, meaning in _attributes(Quota).items()],
        ),
        "## A message",
        _table(
            ("limit", "value"),
            [
                ("transcript text", f"{messages.MAX_TEXT_CHARACTERS:,} code points"),
                ("names in a glossary", f"{messages.MAX_GLOSSARY_ENTRIES}"),
                (
                    "sample rate",
                    f"{wire_parts.MIN_SAMPLE_RATE:,} to {wire_parts.MAX_SAMPLE_RATE:,} Hz",
                ),
                ("channels", f"1 to {wire_parts.MAX_CHANNELS}"),
                ("an integer", "2⁵³ − 1, the largest that JavaScript holds exactly"),
            ],
        ),
    ]
    return _page(parts)


def _limits_table(limits: Any) -> str:
    described = _attributes(type(limits))
    assert is_dataclass(limits)
    values = {field.name: getattr(limits, field.name) for field in fields(limits)}
    rows = [
        (f"`{name}`", f"{value:,}".removesuffix(".0"), described[name])
        for name, value in values.items()
        if isinstance(value, int | float)
    ]
    return _table(("limit", "default", "meaning"), rows)


# --- text -----------------------------------------------------------------------------------------


def _attributes(documented: type) -> dict[str, str]:
    """The part "Attributes" of a docstring, by name."""
    doc = inspect.getdoc(documented) or ""
    _, _, section = doc.partition("\nAttributes:\n")
    found: dict[str, str] = {}
    for item in re.split(r"\n(?= {4}\S)", "\n" + section.rstrip()):
        name, _, meaning = item.strip().partition(": ")
        if name:
            found[name] = _cell(meaning)
    return found


def _summary(documented: type) -> str:
    doc = inspect.getdoc(documented) or ""
    return re.sub(r"\s*\n\s*", " ", doc.partition("\nAttributes:")[0]).strip()


def _type_name(hint: Any) -> str:
    if hasattr(hint, "__metadata__"):
        return _type_name(typing.get_args(hint)[0]) + _bounds(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        # What may be left out: a key has no other way to be none.
        return " or ".join(_type_name(each) for each in inner if each is not types.NoneType)
    if origin is typing.Literal:
        return " \\| ".join(f'`"{value}"`' for value in inner)
    if origin in (list, tuple):
        items = {_type_name(each): None for each in inner if each is not Ellipsis}
        return f"list of {', '.join(items)}"
    if origin is dict:
        return "table"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "table"
    names = {int: "integer", float: "number", str: "string", bool: "boolean"}
    return names[hint]


def _plain(text: str) -> str:
    """A docstring or help text as Markdown: no rich or Sphinx markup, lines not too long."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    joined = [re.sub(r"\s*\n\s*", " ", part) for part in paragraphs]
    parts = [part if part.startswith("cnerta-") else _wrapped(_unmarked(part)) for part in joined]
    together = "\n\n".join(parts)
    # Examples of commands stand in paragraphs of their own; together they are a block.
    return re.sub(
        r"(?:^cnerta-.*(?:\n\n|\Z))+",
        lambda found: "```text\n" + re.sub(r"\n\n", "\n", found[0]).rstrip() + "\n```\n\n",
        together,
        flags=re.MULTILINE,
    ).rstrip()


def _unmarked(text: str) -> str:
    text = re.sub(r":\w+:`(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    parts = text.replace("\\[", "[").split("`")
    parts[::2] = [part.replace("<", "\\<") for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    """A docstring or help text as a cell of a table."""
    text = text.replace(f" ({', '.join(recipe.recipe_names())})", "")
    text = _unmarked(re.sub(r"\s*\n\s*", " ", text)).strip()
    text = re.sub(r"\s*\[default: .*?\]", "", text)
    return text.replace("|", "\\|")


def _wrapped(text: str, width: int = 110) -> str:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _page(parts: Sequence[str]) -> str:
    wrapped = [
        part if part.startswith(("|", "#", "<!--", "```")) else _wrap_all(part) for part in parts
    ]
    return "\n\n".join(part for part in wrapped if part) + "\n"


def _wrap_all(part: str) -> str:
    if "```" in part:
        return part
    return "\n".join(_wrapped(line) for line in part.split("\n"))


REFERENCE_PAGES: Final[dict[str, Callable[[], str]]] = {
    "commands.md": commands_page,
    "configuration.md": configuration_page,
    "recipes.md": recipes_page,
    "messages.md": messages_page,
    "limits.md": limits_page,
}


def write_all() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, make in REFERENCE_PAGES.items():
        (REFERENCE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    write_all()
