"""Bundles of the Hugging Face hub, through its own client, from a hub of this test."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cnerta.models.errors import BundleError
from cnerta.models.runtime import hub
from cnerta.models.runtime.bundle import bundle_files, default_bundle_path, find_bundle, load_bundle

pytest.importorskip("huggingface_hub")

NAME = "somebody/a-model"
COMMIT = "a" * 40


class Hub:
    """A hub with one model.

    Attributes:
        files: What it has.
        asked: Paths of all requests.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                path = self.path.partition("?")[0]
                kept.asked.append(path)
                body, headers, status = kept.find(path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

    def find(self, path: str) -> tuple[bytes, dict[str, str], int]:
        if path.startswith(f"/api/models/{NAME}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": f"{number:040x}"}
                for number, (name, body) in enumerate(self.files.items())
            ]
            return json.dumps(tree).encode(), {"Content-Type": "application/json"}, 200
        if path.startswith(f"/api/models/{NAME}"):
            about: dict[str, Any] = {
                "id": NAME,
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in self.files],
            }
            return json.dumps(about).encode(), {"Content-Type": "application/json"}, 200
        for revision in (COMMIT, "main"):
            start = f"/{NAME}/resolve/{revision}/"
            if path.startswith(start) and path.removeprefix(start) in self.files:
                body = self.files[path.removeprefix(start)]
                etag = hashlib.sha256(body).hexdigest()
                return body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, 200
        return b"", {"X-Error-Code": "RepoNotFound"}, 404


def fetched(endpoint: str, cache: Path, name: str = f"hf:{NAME}") -> str:
    """What a process of its own says of a bundle: the client reads its address once."""
    code = (
        "import sys; from pathlib import Path\n"
        "from cnerta.models.errors import BundleError\n"
        "from cnerta.models.runtime.bundle import find_bundle, load_bundle\n"
        "try: print(load_bundle(find_bundle(Path(sys.argv[1]))).name)\n"
        "except BundleError as error: print('refused:', error)\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", code, name]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture
def files() -> dict[str, bytes]:
    path = default_bundle_path()
    return {name: (path / name).read_bytes() for name in bundle_files(path)}


def test_a_bundle_is_fetched_once_and_without_what_is_none_of_it(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    others = {"README.md": b"# A model", "evil.pkl": b"\x80\x04."}
    hub = Hub({**files, **others})
    with hub.serving() as endpoint:
        assert fetched(endpoint, tmp_path) == "cnerta-fast"
    asked = {Path(path).name for path in hub.asked}
    assert set(files) <= asked
    assert asked.isdisjoint(others)
    # The server is gone: what is in the cache is enough.
    assert fetched(endpoint, tmp_path) == "cnerta-fast"


def test_a_file_that_was_changed_on_the_way_is_refused(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    changed = bytearray(files["tagger.onnx"])
    changed[1000] ^= 1
    with Hub({**files, "tagger.onnx": bytes(changed)}).serving() as endpoint:
        said = fetched(endpoint, tmp_path)
    assert said.startswith("refused: expected tagger.onnx with sha256")


def test_what_is_no_bundle_or_not_there_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with Hub({"README.md": b"# Something else"}).serving() as endpoint:
        said = fetched(endpoint, tmp_path)
        assert "expected a bundle with bundle.json" in said
        said = fetched(endpoint, tmp_path, "hf:somebody/another")
        assert said.startswith("refused: expected to fetch the bundle hf:somebody/another once")
        assert "name its folder" in said


@pytest.mark.parametrize("name", ["hf:", "hf:model", "hf:a/b/c", "hf:../b", "hf:a/b@", "hf:a b/c"])
def test_what_is_no_name_of_the_hub_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION"):
        find_bundle(Path(name))


def test_a_revision_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    class Client:
        def snapshot_download(self, name: str, **wanted: Any) -> str:
            asked.append({"name": name, **wanted})
            return str(default_bundle_path())

    monkeypatch.setattr(hub, "_client", Client)
    assert load_bundle(find_bundle(Path("hf:a/b@v1.2"))).name == "cnerta-fast"
    (only,) = asked
    assert (only["name"], only["revision"], only["local_files_only"]) == ("a/b", "v1.2", True)
    assert "bundle.json" in only["allow_patterns"]


def test_without_the_client_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"pip install 'cnerta-stream\[hub\]'"):
        find_bundle(Path("hf:a/b"))
