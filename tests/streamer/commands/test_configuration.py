"""What holds for ``cnerta-serve``: command line over environment over file over defaults."""

from __future__ import annotations

import os
import re
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from cnerta.streamer.commands.configuration import Configuration
from cnerta.streamer.commands.serve import app, serve
from cnerta.streamer.commands.settings import (
    OTHER_VARIABLES,
    Setting,
    settings_of,
    toml_value,
)

ROOT = Path(__file__).parents[3]
SETTINGS = settings_of(serve)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("CNERTA_"):
            monkeypatch.delenv(variable)


def sample(setting: Setting, number: int) -> Any:
    """One of three values of a setting, none of which is its default."""
    if setting.kind is bool:
        one: Any = (number % 2 == 0) is not setting.default
    elif typing.get_origin(setting.kind) is Literal:
        others = [word for word in typing.get_args(setting.kind) if word != setting.default]
        one = others[number % len(others)]
    elif setting.kind in (int, float):
        one = setting.kind((setting.least or 0) + 101 + number)
    else:
        one = f"sample-{number}"
    return [one, f"{one}-too"] if setting.is_list else one


def written(setting: Setting, value: Any) -> list[str]:
    """A value on the command line."""
    if setting.kind is bool:
        return [setting.option if value else setting.option.replace("--", "--no-", 1)]
    values = value if setting.is_list else [value]
    return [word for each in values for word in (setting.option, str(each))]


def typed(setting: Setting, value: Any) -> Any:
    return Path(value) if setting.kind is Path else value


def configured(*arguments: str) -> Configuration:
    context = typer.main.get_command(app).make_context("cnerta-serve", list(arguments))
    return Configuration.of(typing.cast(typer.Context, context))


def test_every_option_is_a_setting() -> None:
    """But those that say what the command does."""
    options = {
        parameter.name: {*parameter.opts, *parameter.secondary_opts}
        for parameter in typer.main.get_command(app).params
        if not parameter.is_eager
    }
    assert options.keys() == SETTINGS.keys()
    assert not [key for key, setting in SETTINGS.items() if setting.option not in options[key]]
    assert {"host", "port", "origin", "insecure", "log_level"} <= SETTINGS.keys()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_who_counts_more(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every option, those of tomorrow included."""
    key = setting.name
    path = tmp_path / "serve.toml"
    in_file, in_environment, typed_in = (sample(setting, number) for number in (1, 2, 3))
    path.write_text(f"{key} = {toml_value(in_file)}\n", encoding="utf-8")

    def held(*arguments: str) -> tuple[Any, str]:
        found = configured(*arguments)
        assert found.values.keys() == SETTINGS.keys()
        return found.values[key], found.origin(key)

    default = [] if setting.is_list else setting.default
    assert (held()[0] or default, held()[1]) == (default, "default")
    assert held("--config", str(path)) == (typed(setting, in_file), str(path))
    monkeypatch.setenv("CNERTA_CONFIG", str(path))
    assert held() == (typed(setting, in_file), str(path))
    text = ",".join(in_environment) if setting.is_list else str(in_environment)
    monkeypatch.setenv(setting.variable, text)
    assert held() == (typed(setting, in_environment), setting.variable)
    arguments = written(setting, typed_in)
    assert held(*arguments) == (typed(setting, typed_in), "command line")


def check(*arguments: str) -> tuple[int, str, str]:
    """What ``--check-config`` ends with and prints; errors without their frame."""
    result = CliRunner().invoke(app, [*arguments, "--check-config"])
    stderr = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())
    return result.exit_code, result.stdout, stderr


def test_what_is_printed_is_a_file_that_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "serve.toml"
    path.write_text('memory_mb = 99\norigin = ["https://a", "https://b"]\n', encoding="utf-8")
    monkeypatch.setenv("CNERTA_IDLE_TIMEOUT_S", "7")
    status, printed, _ = check("--config", str(path), "--port", "9")
    assert status == 0
    assert f"memory_mb = 99  # {path}\n" in printed
    assert "idle_timeout_s = 7.0  # CNERTA_IDLE_TIMEOUT_S\n" in printed
    assert "port = 9  # command line\n" in printed
    assert 'host = "127.0.0.1"  # default\n' in printed
    assert "# token_file is not set\n" in printed
    again = tmp_path / "again.toml"
    again.write_text(printed, encoding="utf-8")
    monkeypatch.delenv("CNERTA_IDLE_TIMEOUT_S")
    _, printed_again, _ = check("--config", str(again))
    assert tomllib.loads(printed_again) == tomllib.loads(printed)


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNERTA_TOKEN", "a-token-that-is-secret")
    monkeypatch.setenv("CNERTA_SOURCE", "vosk:ws://me:password@host:1,api_key=abcdef")
    status, printed, said = check()
    assert status == 0
    assert "CNERTA_TOKEN is a token (not shown)" in printed
    for secret in ("a-token-that", "password", "abcdef"):
        assert secret not in printed + said
    assert 'source = "***@host:1,api_key=***"' in printed


def test_a_wrong_value_names_where_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "serve.toml"
    monkeypatch.setenv("CNERTA_CONFIG", str(path))
    status, _, said = check()
    assert status == 2
    assert "expected a TOML file at" in said
    path.write_text('port = "x"\n', encoding="utf-8")
    status, _, said = check()
    assert status == 2
    assert "port: expected a whole number from 0 to 65535, got 'x'" in said
    # What only the server itself can judge.
    path.write_text('metrics_address = "9100"\n', encoding="utf-8")
    status, _, said = check()
    assert status == 2
    assert "got '9100' (metrics_address is from" in said
    assert check("--metrics-address", "127.0.0.1:9100")[0] == 0
    monkeypatch.setenv("CNERTA_TRUSTED_PROXY", "nonsense")
    status, _, said = check("--metrics-address", "127.0.0.1:9100")
    assert status == 2
    assert "(trusted_proxy is from CNERTA_TRUSTED_PROXY)" in said


def test_a_number_without_end() -> None:
    status, _, said = check("--max-ahead-s", "inf")
    assert status == 2
    assert "expected --max-ahead-s to be a number, got inf" in said
    assert check("--max-ahead-s", "nan")[0] == 2


def test_a_bundle_that_is_not_there() -> None:
    status, _, said = check("--bundle", "nowhere")
    assert status == 8
    assert "nowhere" in said


def test_a_variable_that_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CNERTA_PROT", "1")
    status, _, _ = check()
    assert status == 2
    assert "got CNERTA_PROT: is CNERTA_PORT meant?" in caplog.text


def test_every_variable_that_the_code_reads_is_known() -> None:
    """A new one that is no option has to be in `OTHER_VARIABLES`, or the server warns of it."""
    named = {
        name
        for path in (ROOT / "streamer").rglob("*.py")
        for name in re.findall(r'"(CNERTA_[A-Z_]+[A-Z])"', path.read_text(encoding="utf-8"))
    }
    assert named >= OTHER_VARIABLES
    known = {setting.variable for setting in SETTINGS.values()} | OTHER_VARIABLES
    assert named <= known | {"CNERTA_CONFIG"}


@pytest.mark.parametrize(
    ("arguments", "is_warned_of"),
    [
        (("--host", "0.0.0.0"), True),
        (("--host", "127.0.0.1"), False),
        (("--host", "0.0.0.0", "--trusted-proxy", "10.0.0.0/8"), False),
    ],
)
def test_a_token_in_clear_text_is_warned_of(
    arguments: tuple[str, ...],
    is_warned_of: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CNERTA_TOKEN", "a-token-that-is-secret")
    assert check(*arguments)[0] == 0
    assert ("in clear text" in caplog.text) is is_warned_of
