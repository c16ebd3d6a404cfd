"""A hub of the tests' own: one model, which can be fetched and uploaded."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .http_server import HttpServer, QuietHandler

NAME = "somebody/a-model"
COMMIT = "a" * 40
_JSON = {"Content-Type": "application/json"}


class Hub:
    """A hub with one model.

    Attributes:
        files: What it has.
        asked: Paths of all requests.
        made: What was asked for when the model was made.
        tokens: What those who upload say who they are.
        refuses: Nobody may upload.
    """

    def __init__(self, files: dict[str, bytes], *, refuses: bool = False) -> None:
        self.files = files
        self.asked: list[str] = []
        self.made: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuses = refuses

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        kept = self

        class Handler(QuietHandler):
            def post(self, body: bytes) -> None:
                kept.tokens.add(self.headers["Authorization"])
                status, said = kept.take(self.path, body)
                self.answer(status, json.dumps(said).encode(), _JSON)

            def get(self) -> None:
                path = self.path.partition("?")[0]
                kept.asked.append(path)
                body, headers, status = kept.find(path)
                self.answer(status, body, headers)

        with contextlib.closing(HttpServer(Handler)) as server:
            yield server.url

    def find(self, path: str) -> tuple[bytes, dict[str, str], int]:
        if path.startswith(f"/api/models/{NAME}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": f"{number:040x}"}
                for number, (name, body) in enumerate(self.files.items())
            ]
            return json.dumps(tree).encode(), _JSON, 200
        if path.startswith(f"/api/models/{NAME}"):
            about: dict[str, Any] = {
                "id": NAME,
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in self.files],
            }
            return json.dumps(about).encode(), _JSON, 200
        for revision in (COMMIT, "main"):
            start = f"/{NAME}/resolve/{revision}/"
            if path.startswith(start) and path.removeprefix(start) in self.files:
                body = self.files[path.removeprefix(start)]
                etag = hashlib.sha256(body).hexdigest()
                return body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, 200
        return b"", {"X-Error-Code": "RepoNotFound"}, 404

    def take(self, path: str, sent: bytes) -> tuple[int, dict[str, Any]]:
        """Answer who uploads: status and content."""
        if self.refuses:
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            self.made.append(json.loads(sent))
            return 200, {"url": f"https://huggingface.co/{NAME}", "id": NAME}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == f"/api/models/{NAME}/preupload/main":
            wanted = json.loads(sent)["files"]
            return 200, {
                "files": [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in wanted
                ]
            }
        if path == f"/api/models/{NAME}/commit/main":
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[line["value"]["path"]] = content
            return 200, {
                "commitOid": COMMIT,
                "commitUrl": f"https://huggingface.co/{NAME}/commit/{COMMIT}",
            }
        return 404, {"error": f"nothing at {path}"}


def run_with_hub(endpoint: str, cache: Path, code: str, *arguments: str) -> str:
    """What a process of its own says: the hub's client reads the hub's address once.

    Args:
        endpoint: The hub's address.
        cache: Folder of the client.
        code: Python, which finds the arguments from ``sys.argv[1]`` on.
        arguments: Any.
    """
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_TOKEN": "hf_of_the_test",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()
