"""What `cnerta.streamer` offers to other programs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile

import cnerta.streamer as api


@pytest.mark.parametrize("name", api.__all__)
def test_each_name_is_that_of_its_module(name: str) -> None:
    value = getattr(api, name)
    assert name in dir(api)
    module = getattr(value, "__module__", "")
    if module.startswith("cnerta."):  # others are unions of types
        assert getattr(sys.modules[module], name) is value


def test_the_names_are_listed_once_in_the_order_of_their_kind() -> None:
    assert sorted(api.__all__) == sorted(set(api.__all__))
    assert set(api._MODULES) == set(api.__all__)


def test_a_name_that_is_not_offered() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sessoin'"):
        api.Sessoin  # noqa: B018


def test_a_name_is_found_in_a_fresh_process_and_brings_only_what_it_needs() -> None:
    script = (
        "import sys, cnerta.streamer as api\n"
        "assert not any(m.startswith('cnerta.streamer.') for m in sys.modules)\n"
        "api.UtteranceFinal\n"
        "assert 'cnerta.streamer.wire.messages' in sys.modules\n"
        "assert not {'numpy', 'websockets', 'onnxruntime'} & set(sys.modules)\n"
        "from cnerta.streamer import *\n"
        "assert stream.__module__ == 'cnerta.streamer.client.stream'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "talk.wav", np.zeros(32_000), 16_000)
    monkeypatch.chdir(tmp_path)
    assert api.__doc__ is not None
    example = api.__doc__.partition("::\n\n")[2].partition("\n\n`")[0]
    code = "from pathlib import Path\nfrom cnerta.streamer import *\nasync def main():\n"
    code += textwrap.indent(textwrap.dedent(example), "    ")
    names: dict[str, object] = {}
    exec(code, names)
    main = names["main"]
    assert callable(main)
    asyncio.run(main())
    assert capsys.readouterr().out.startswith("今天在南京市长江大桥 [(")
