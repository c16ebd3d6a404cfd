"""The page's modules and the client, each on its own, in Node."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import soundfile

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer.outputs.caption_files import open_caption_file
from cnerta.streamer.outputs.highlighting import Highlighter, HighlightRule
from cnerta.streamer.serving.server import Server
from cnerta.streamer.wire.parts import Entity

from .. import server_messages as wire
from .paths import DEMO, HERE, OLDEST_NODE, PAGE, ROOT, node

NODE = node()
pytestmark = pytest.mark.skipif(NODE is None, reason=f"needs Node {OLDEST_NODE} or newer")

READ = """
import { readFileSync } from "node:fs";
import { SourceTextModule } from "node:vm";
for (const path of process.argv.slice(1)) {
  new SourceTextModule(readFileSync(path, "utf8"), { identifier: path });
}
"""
CHOOSE = """
import { Highlighter } from %s;
const { share, first, utterances } = JSON.parse(process.argv[1]);
const highlighter = new Highlighter(share, first);
console.log(JSON.stringify(utterances.map((each) => [...highlighter.choose(each)].sort())));
"""


def run_node(*arguments: str, folder: Path | None = None, **environment: str) -> str:
    assert NODE is not None
    done = subprocess.run(
        [NODE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=folder,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["client", "modules"])
def test_javascript(name: str) -> None:
    told = run_node("--test", "--test-reporter=tap", str(HERE / "unit" / f"{name}.test.mjs"))
    assert "\n# fail 0\n" in told
    assert "\n# pass 0\n" not in told


@pytest.mark.skipif(
    not (HERE / "node_modules" / "webvtt-parser").is_dir(),
    reason="needs webvtt-parser and vtt.js (make page-tools installs them)",
)
def test_captions_are_read_elsewhere_and_those_from_elsewhere_here(tmp_path: Path) -> None:
    sentences = [
        "他说1<2&3>2，在南京市长江大桥",
        "😀今天--在北京大学{见}到了江大桥",
        "我们昨天下午一起去看了市中心新开张的一家珠宝店，和旁边那家开了很多年的书店，然后才回来",
    ]
    for form in ("vtt", "srt"):
        with open_caption_file(tmp_path / f"talk.{form}", "talk", Highlighter()) as file:
            file.on_message(wire.ready())
            for number, text in enumerate(sentences):
                named = [
                    wire.entity(label, name, text.index(name))
                    for label, name in (("LOC", "南京市"), ("LOC", "长江大桥"), ("ORG", "北京大学"))
                    if name in text
                ]
                times = [
                    (10_000 * number + 200 * at, 10_000 * number + 200 * at + 200)
                    for at in range(len(text))
                ]
                message = wire.final(f"u{number}", 1, text, *named)
                file.on_message(msgspec.structs.replace(message, characters=times))
    told = run_node(
        "--test",
        "--test-reporter=tap",
        str(HERE / "unit" / "elsewhere.test.mjs"),
        PAGE_CAPTIONS=str(tmp_path),
        PAGE_FFMPEG=shutil.which("ffmpeg") or "",
    )
    assert "\n# fail 0\n" in told
    assert "\n# pass 0\n" not in told


def test_the_client_survives_a_real_server(tmp_path: Path) -> None:
    for name in ("bridge", "mayor"):
        samples, rate = soundfile.read(DEMO / f"{name}.flac", dtype="int16")
        assert rate == 16_000
        (tmp_path / f"{name}.raw").write_bytes(samples.tobytes())
    told = run_node(
        "--experimental-websocket",
        "--test",
        "--test-reporter=tap",
        str(HERE / "unit" / "resilience.test.mjs"),
        PAGE_PYTHON=sys.executable,
        PAGE_SAMPLES=str(tmp_path),
    )
    assert "\n# pass 2\n" in told


async def test_the_example_of_the_how_to_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "browser.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```javascript\n(.*?)```", page, re.DOTALL)
    assert len(program.strip().splitlines()) <= 20
    samples, rate = soundfile.read(DEMO / "mayor.flac", dtype="int16")
    soundfile.write(tmp_path / "mayor.wav", samples, rate)
    package = tmp_path / "node_modules" / "cnerta-stream"
    package.parent.mkdir()
    package.symlink_to(PAGE)
    async with Server(Model.load(find_bundle(None))) as server:
        await server.start()
        script = tmp_path / "example.mjs"
        script.write_text(program.replace("127.0.0.1:8765", f"127.0.0.1:{server.port}"), "utf-8")
        told = await asyncio.to_thread(
            run_node, "--experimental-websocket", str(script), folder=tmp_path
        )
    assert "LOC 南京 " in told
    assert "PER 江大桥 " in told
    assert "the audio was used" in told
    assert "type: 'session.summary'" in told


def test_every_module_can_be_read() -> None:
    paths = [str(path) for path in sorted(PAGE.rglob("*.js"))]
    run_node(
        "--experimental-vm-modules", "--no-warnings", "--input-type=module", "-e", READ, *paths
    )


def entity(name: str, text: str, start: int, confidence: float) -> Entity:
    return Entity(
        id=name,
        version=1,
        status="final",
        label="PER",
        text=text,
        start=start,
        end=start + len(text),
        start_utf16=start,
        end_utf16=start + len(text),
        parent=None,
        start_ms=None,
        end_ms=None,
        time_source="none",
        confidence=confidence,
        audio_used=False,
    )


@pytest.mark.parametrize(
    ("share", "first"), [(1.0, False), (1.0, True), (0.15, False), (0.3, True)]
)
def test_the_page_marks_what_the_terminal_marks(share: float, first: bool) -> None:
    chance = random.Random(5)
    utterances = []
    for number in range(40):
        text = "".join(chance.choices("甲乙丙丁", k=chance.randint(4, 30)))
        found = []
        for index in range(chance.randint(0, 5)):
            start = chance.randrange(len(text))
            piece = text[start : start + chance.randint(1, 3)]
            found.append(entity(f"e{number}-{index}", piece, start, chance.random()))
        # Each is asked about while it grows, and when it is final.
        utterances += [(f"u{number}", text, found, False), (f"u{number}", text, found, True)]
    highlighter = Highlighter(HighlightRule(share, first))
    expected = [
        sorted(highlighter.choose(name, text, found, final=final))
        for name, text, found, final in utterances
    ]
    told = [
        {
            "key": name,
            "text": text,
            "final": final,
            "entities": [
                {
                    "id": each.id,
                    "label": each.label,
                    "text": each.text,
                    "start": each.start,
                    "end": each.end,
                    "confidence": each.confidence,
                }
                for each in found
            ],
        }
        for name, text, found, final in utterances
    ]
    script = CHOOSE % json.dumps((PAGE / "app" / "highlighter.js").as_uri())
    question = json.dumps({"share": share, "first": first, "utterances": told})
    answer = json.loads(run_node("--input-type=module", "-e", script, question))
    assert answer == expected


def test_the_package_is_what_a_registry_takes(tmp_path: Path) -> None:
    told = json.loads((PAGE / "package.json").read_text(encoding="utf-8"))
    assert told["exports"]["."] == "./client.js"
    for name in told["files"]:
        (tmp_path / name).write_bytes((PAGE / name).read_bytes())
    (tmp_path / "package.json").write_bytes((PAGE / "package.json").read_bytes())
    program = tmp_path / "use.mjs"
    program.write_text(
        'import { CnertaClient } from "cnerta-stream";\nconsole.log(typeof CnertaClient);\n',
        encoding="utf-8",
    )
    assert run_node(str(program)).strip() == "function"
