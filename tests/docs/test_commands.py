"""What documents tell a person to type does what they say: every block of commands is run.

Each page's blocks run in order, in a folder that looks like a clone after `make demo`: commands of
a block find what those before it wrote. Nothing is fetched: what needs the internet, a microphone,
corpora or hours says so in a comment before its block (see `pages`), and is only shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
import soundfile
import typer
from typer.testing import CliRunner

from .pages import ROOT, Block, Page, all_pages

TREE: Final = (
    "Makefile",
    "pyproject.toml",
    "docs",
    "export",
    "models",
    "streamer",
    "tests",
    "train",
)
RUN: Final = ("sh", "python")
FINE_TUNING: Final = "docs/how-to/fine-tune.md"
SECONDS: Final = 300
"""For one block. None takes nearly as long; a hanging one is to fail as itself."""
USUAL_PORT: Final = "8765"
"""The server's usual port, for which a free one stands in."""

DEMO: Final = ROOT / "streamer" / "demo"

PAGES = [page for page in all_pages() if any(b.language in RUN for b in page.blocks)]


def make_clone(folder: Path) -> Path:
    """A folder like a clone after `make demo` and `make test`, with this environment as both."""
    for name in TREE:
        (folder / name).symlink_to(ROOT / name)
    for name in ("serve", "dev"):
        environment = folder / ".venv" / name
        environment.mkdir(parents=True)
        for path in Path(sys.prefix).glob("[!.]*"):
            (environment / path.name).symlink_to(path)
        for stamp in (".ready", ".ready-cpu"):
            (environment / stamp).touch()
    write_corpora(folder)
    return folder


_SAID: Final = "各位观众今天我们来认识一下"
CORPUS: Final = {
    "train": [
        (
            f"{_SAID}南京市长江大桥",
            [[13, 16, "南京市", "LOC"], [16, 20, "长江大桥", "LOC"], [16, 18, "长江", "LOC"]],
        ),
        (f"{_SAID}南京市长江大桥", [[13, 15, "南京", "LOC"], [17, 20, "江大桥", "PER"]]),
        (
            "王芳在北京大学读书",
            [[0, 2, "王芳", "PER"], [3, 7, "北京大学", "ORG"], [3, 5, "北京", "LOC"]],
        ),
    ],
    "valid": [
        ("李明昨天去了上海", [[0, 2, "李明", "PER"], [6, 8, "上海", "LOC"]]),
        ("张伟住在广州", [[0, 2, "张伟", "PER"], [4, 6, "广州", "LOC"]]),
    ],
    "test": [
        (f"{_SAID}长江大桥", [[13, 17, "长江大桥", "LOC"]]),
        ("陈静在清华大学工作", [[0, 2, "陈静", "PER"], [3, 7, "清华大学", "ORG"]]),
    ],
}


def write_corpora(folder: Path) -> None:
    """CNERTA and AISHELL-1 in miniature, laid out as published, with the demo's recordings."""
    (folder / "data").mkdir()
    for number, (name, sentences) in enumerate(CORPUS.items(), 2):
        speaker = f"S{number:04}"
        spoken = folder / "data" / "data_aishell" / "wav" / name / speaker
        spoken.mkdir(parents=True)
        lines = []
        for index, (sentence, entities) in enumerate(sentences):
            audio = f"BAC009{speaker}W{index:04}"
            recording = ("bridge", "mayor")[index % 2]
            samples, rate = soundfile.read(DEMO / f"{recording}.flac")
            soundfile.write(spoken / f"{audio}.wav", samples, rate)
            row = {"sentence": sentence, "audio": audio, "entity": entities, "speaker_info": "F"}
            lines.append(json.dumps(row, ensure_ascii=False))
        (folder / "data" / f"{name}.json").write_text("\n".join(lines) + "\n", encoding="utf-8")

    # The release's vectors: fifty numbers for each of a few characters.
    rows = (f"{c} {' '.join(['0.1'] * 50)}" for c in "南京市长江大桥北上海")
    vectors = folder / "data" / "gigaword_chn.char50d.vec"
    vectors.write_text("\n".join(rows) + "\n", encoding="utf-8")


def free_port() -> str:
    """A port that nobody has, nor is given: a page may use it a minute later.

    What the system gives to whoever asks for any port lies above these, nearly everywhere.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return str(port)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Path]]]:
    """What becomes of each page that is asked for: the folder where its blocks ran.

    Two run at a time: most of it is waiting.
    """
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asking = [item for item in items if "outcomes" in item.fixturenames]
    names = {
        item.callspec.params["page"].name if "page" in item.fixturenames else FINE_TUNING
        for item in asking
    }
    wanted = [page for page in PAGES if page.name in names]
    with ThreadPoolExecutor(2) as pool:
        yield {
            page.name: pool.submit(run_page, page, make_clone(tmp_path_factory.mktemp("clone")))
            for page in wanted
        }


@pytest.mark.timeout(600)  # a page may wait for those before it
@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_commands_of_a_page_run(page: Page, outcomes: dict[str, Future[Path]]) -> None:
    outcomes[page.name].result()


@pytest.mark.timeout(600)
def test_the_example_of_fine_tuning_improves_on_new_names_and_keeps_the_old(
    outcomes: dict[str, Future[Path]],
) -> None:
    pytest.importorskip("torch")
    folder = outcomes[FINE_TUNING].result()
    start, best = ROOT / "models" / "checkpoints" / "fast", folder / "runs/mine/best-0-mine"
    new, old = folder / "mine/test.jsonl", folder / "mine/old_test.jsonl"
    assert nested_f1(best, new) > nested_f1(start, new) + 25
    assert nested_f1(best, old) >= nested_f1(start, old) - 0.5


def nested_f1(checkpoint: Path, data: Path) -> float:
    """As ``cnerta-evaluate`` says it, in percent."""
    from cnerta.train.commands.evaluate import evaluate

    app = typer.Typer()
    app.command()(evaluate)
    arguments = ["--checkpoint", checkpoint, "--data", data, "--json", "--text-only", "--threads"]
    said = CliRunner().invoke(app, [*map(str, arguments), "1"])
    assert said.exit_code == 0, said.output
    return float(json.loads(said.stdout)["nested"]["f1"])


def run_page(page: Page, folder: Path) -> Path:
    """Run a page's blocks in order, in a folder of their own, which is returned."""
    port = free_port()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PORT": port,  # of `make serve`
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TERM": "dumb",
    }
    with contextlib.ExitStack() as stack:
        for block in page.blocks:
            code = block.code.replace(USUAL_PORT, port)
            if block.file:
                (folder / block.file).write_text(code, encoding="utf-8")
            elif block.language in RUN and not block.not_run and not missing(block):
                command = as_command(block, code, folder)
                if block.background:
                    url = f"http://127.0.0.1:{port}{block.background}"
                    stack.enter_context(in_background(command, url, folder, environment))
                else:
                    run(page, block, command, folder, environment)
    return folder


def missing(block: Block) -> bool:
    """Whether a block uses a program that not every machine has, and this one has not."""
    return any(name in block.code and shutil.which(name) is None for name in ("curl",))


def as_command(block: Block, code: str, folder: Path) -> list[str]:
    """How a shell or Python is told to run a block."""
    if block.language == "python":
        (folder / "block.py").write_text(code, encoding="utf-8")
        return [sys.executable, "block.py"]
    return ["bash", "-euo", "pipefail", "-c", code]


def run(
    page: Page, block: Block, command: list[str], folder: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    said = done.stdout[-2_000:] + done.stderr[-2_000:]
    assert done.returncode == 0, f"{page.name}:{block.line}\n{block.code}\n{said}"


@contextlib.contextmanager
def in_background(
    command: list[str], url: str, folder: Path, environment: dict[str, str]
) -> Iterator[None]:
    """A server that runs while the rest of its page does."""
    said = folder / "said.txt"
    with (
        said.open("w") as errors,
        subprocess.Popen(
            command, cwd=folder, env=environment, start_new_session=True, stderr=errors
        ) as server,
    ):
        try:
            for _ in range(SECONDS * 10):
                assert server.poll() is None, f"{command} has ended: {said.read_text()[-2_000:]}"
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(f"expected {url} to answer, got nothing for {SECONDS} s")
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)


def test_reasons_for_not_running_are_reasons() -> None:
    reasons = [(p.name, b.not_run) for p in all_pages() for b in p.blocks if b.not_run]
    assert reasons
    assert not [r for r in reasons if not re.match(r"it (needs|takes|runs|is) ", r[1])]


def test_an_unmarked_block_that_fails_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("```sh\ncnerta-stream --file no.wav --transcript 他\n```\n", encoding="utf-8")
    (block,) = Page(path).blocks
    command = as_command(block, block.code, tmp_path)
    with pytest.raises(AssertionError, match=r"no\.wav"):
        run(Page(ROOT / "README.md"), block, command, tmp_path, dict(os.environ))
