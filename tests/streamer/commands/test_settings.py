"""Options as keys of a file and as variables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from cnerta.models.errors import ConfigError
from cnerta.streamer.commands.settings import (
    Setting,
    read_environment,
    read_file,
    redacted,
    settings_of,
    toml_value,
    unknown_variables,
)


def command(
    port: Annotated[int, typer.Option(min=0, max=9)] = 3,
    share: Annotated[float, typer.Option()] = 1.0,
    mode: Annotated[Literal["a", "b"], typer.Option()] = "a",
    name: Annotated[list[str] | None, typer.Option()] = None,
    folder: Annotated[Path | None, typer.Option()] = None,
    loud: Annotated[bool, typer.Option("--loud/--quiet")] = False,
    show: Annotated[bool, typer.Option("--show", is_eager=True)] = False,
    other: int = 3,
) -> None: ...


SETTINGS = settings_of(command)


def test_settings_are_what_the_command_says() -> None:
    assert {
        "port": Setting("port", int, least=0, most=9, default=3),
        "share": Setting("share", float, default=1.0),
        "mode": Setting("mode", Literal["a", "b"], default="a"),
        "name": Setting("name", str, is_list=True),
        "folder": Setting("folder", Path),
        "loud": Setting("loud", bool, default=False),
    } == SETTINGS


def write(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_values_of_each_type(tmp_path: Path) -> None:
    text = 'port = 4\nshare = 2\nmode = "b"\nname = ["x", "y"]\nfolder = "d"\nloud = true\n'
    found = read_file(write(tmp_path, text), SETTINGS)
    assert {key: each.value for key, each in found.items()} == {
        "port": 4, "share": 2.0, "mode": "b", "name": ["x", "y"], "folder": "d", "loud": True,
    }  # fmt: skip
    assert {each.origin for each in found.values()} == {str(tmp_path / "c.toml")}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('port = "4"', "port: expected a whole number from 0 to 9, got '4'"),
        ("port = 10", "port: expected a whole number from 0 to 9, got 10"),
        ("port = 4.5", "port: expected a whole number from 0 to 9, got 4.5"),
        ("port = true", "port: expected a whole number from 0 to 9, got True"),
        ("share = nan", "share: expected a number, got nan"),
        ("share = inf", "share: expected a number, got inf"),
        ('mode = "c"', "mode: expected one of a, b, got 'c'"),
        ('name = "x"', "name: expected a list, each text, got 'x'"),
        ("name = [1]", "name: expected a list, each text, got [1]"),
        ("loud = 1", "loud: expected true or false, got 1"),
        ("[port]\nx = 1", "port: expected a whole number from 0 to 9, got a table"),
        ("prot = 4", "expected a key of the options, got prot: is port meant?"),
        ("show = true", "expected a key of the options, got show"),
        ("port = ", "expected TOML in"),
    ],
)
def test_what_a_file_says_wrongly_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_file(path, SETTINGS)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a TOML file at .*, got: No such file"):
        read_file(tmp_path / "none", SETTINGS)
    (tmp_path / "latin").write_bytes(b'name = ["\xe9"]')
    with pytest.raises(ConfigError, match=r"expected TOML in .*latin"):
        read_file(tmp_path / "latin", SETTINGS)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("port", " 4 ", 4),
        ("share", "0.5", 0.5),
        ("mode", "b", "b"),
        ("name", "x,y", ["x", "y"]),
        ("name", " x\n y ", ["x", "y"]),
        ("name", '["a,b", "c"]', ["a,b", "c"]),
        ("folder", "/a b", "/a b"),
        *(("loud", text, True) for text in ("true", "True", "1", "yes", "on")),
        *(("loud", text, False) for text in ("false", "0", "no", "OFF")),
    ],
)
def test_variables_say_values(key: str, text: str, value: Any) -> None:
    (found,) = read_environment({f"CNERTA_{key.upper()}": text}, SETTINGS).values()
    assert found.value == value
    assert found.origin == f"CNERTA_{key.upper()}"


@pytest.mark.parametrize(
    ("key", "text"),
    [("port", "x"), ("port", "10"), ("share", "nan"), ("mode", "c"), ("loud", "maybe")]
    + [("name", text) for text in ("[a", "[1]", "[]\nb = 1\nc=[")],
)
def test_a_variable_with_a_wrong_value_is_named(key: str, text: str) -> None:
    variable = f"CNERTA_{key.upper()}"
    with pytest.raises(ConfigError, match=rf"{variable}: expected .*, got '"):
        read_environment({variable: text}, SETTINGS)


def test_an_empty_variable_says_nothing() -> None:
    assert read_environment({"CNERTA_PORT": " ", "CNERTA_NAME": ""}, SETTINGS) == {}


def test_variables_that_nobody_knows_are_told_of() -> None:
    known = {"CNERTA_TOKEN": "x", "CNERTA_PORT": "3", "CNERTA_CONFIG": "c", "CNERTA_PAGE_TESTS": ""}
    assert not list(unknown_variables({**known, "PATH": ""}, SETTINGS, ["CNERTA_CONFIG"]))
    (said,) = unknown_variables({**known, "CNERTA_PROT": "1"}, SETTINGS, ["CNERTA_CONFIG"])
    assert said.endswith("got CNERTA_PROT: is CNERTA_PORT meant?")


def test_what_kubernetes_says_of_a_service_is_no_option() -> None:
    links = {
        "CNERTA_PORT": "tcp://10.0.0.1:8765",
        "CNERTA_PORT_8765_TCP": "tcp://10.0.0.1:8765",
        "CNERTA_PORT_8765_TCP_ADDR": "10.0.0.1",
        "CNERTA_SERVICE_HOST": "10.0.0.1",
        "CNERTA_SERVICE_PORT": "8765",
        "CNERTA_SERVICE_PORT_HTTP": "8765",
        "CNERTA_METRICS_PORT": "tcp://10.0.0.1:9100",
    }
    assert read_environment(links, SETTINGS) == {}
    (said,) = unknown_variables(links, SETTINGS)
    assert said.startswith("CNERTA_PORT: expected a port, got what Kubernetes says of a service")


def test_what_is_printed_has_no_secrets() -> None:
    assert redacted("wss://user:word@host/x") == "wss://***@host/x"
    assert redacted("json:wss://h,api_key=abc,text=a.b") == "json:wss://h,api_key=***,text=a.b"
    assert redacted("https://h/?access_token=abc&x=1") == "https://h/?access_token=***&x=***"
    assert "word" not in toml_value(["wss://user:word@host"])


@pytest.mark.parametrize("value", [True, 3, 0.25, 'say "北京"\n\\', [], ["a", 'b"']])
def test_what_is_printed_is_toml(value: Any) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value
