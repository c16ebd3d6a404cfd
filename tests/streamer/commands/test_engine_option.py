"""``cnerta-serve --engine``, as far as it goes without Triton's client."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.streamer.commands.serve import app
from cnerta.streamer.commands.serve_options import parse_engine
from cnerta.streamer.serving.triton.loading import load_from_triton
from cnerta.streamer.serving.triton.server import TritonAddress


def test_an_address_is_taken_apart() -> None:
    assert parse_engine(None) is None
    assert parse_engine("triton://gpu-1:8001") == TritonAddress("gpu-1", 8001)
    assert parse_engine("triton://[::1]:8001") == TritonAddress("[::1]", 8001)


@pytest.mark.parametrize("text", ["triton:8001", "http://a:8001", "triton://a", "triton://a:99999"])
def test_what_is_none_is_an_error_of_the_option(text: str) -> None:
    result = CliRunner().invoke(app, ["--engine", text])
    assert result.exit_code == 2
    said = " ".join(result.output.replace("│", " ").split())
    assert f"expected triton://HOST:PORT, got '{text}'" in said


def test_without_its_client_it_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(InferenceError, match=r"install cnerta-stream\[triton\]"):
        load_from_triton(find_bundle(None), TritonAddress("127.0.0.1", 8001))
