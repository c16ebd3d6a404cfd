"""The page's files over HTTP, without sockets and from a real server."""

from __future__ import annotations

import asyncio
import http
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnerta.streamer.page.static_files import PageFiles, page_files
from cnerta.streamer.serving.server import Server

from .paths import DEMO, PAGE


@pytest.fixture
def files(tmp_path: Path) -> PageFiles:
    page, demo = tmp_path / "page", tmp_path / "demo"
    (page / "app").mkdir(parents=True)
    demo.mkdir()
    (page / "index.html").write_text("<!doctype html>", encoding="utf-8")
    (page / "app" / "main.js").write_text("export {};", encoding="utf-8")
    (page / "__init__.py").write_text("secret", encoding="utf-8")
    (demo / "one.flac").write_bytes(b"fLaC")
    return PageFiles.read(page, demo)


def test_the_page_its_modules_and_the_recordings_are_served(files: PageFiles) -> None:
    assert files.paths == {"/", "/page/index.html", "/page/app/main.js", "/page/demo/one.flac"}
    answer = files.answer("/?overlay=1")
    assert (answer.status, answer.body) == (http.HTTPStatus.OK, b"<!doctype html>")
    assert answer.content_type == "text/html; charset=utf-8"
    script = files.answer("/page/app/main.js")
    assert script.content_type == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "target",
    [
        "/page/__init__.py",
        "/page/../page/index.html",
        "/page/%2e%2e/secret",
        "/page/app",
        "/page//app/main.js",
        "/page/app/main.js/",
        "//page/index.html",
        "/PAGE/index.html",
        "",
    ],
)
def test_no_other_path_leads_anywhere(files: PageFiles, target: str) -> None:
    assert target not in files.paths


@pytest.mark.parametrize(
    ("wrap", "status"),
    [
        ("{}", http.HTTPStatus.NOT_MODIFIED),
        ('"other", W/{}', http.HTTPStatus.NOT_MODIFIED),
        ("*", http.HTTPStatus.NOT_MODIFIED),
        ('"other"', http.HTTPStatus.OK),
    ],
)
def test_what_is_known_is_not_sent_again(
    files: PageFiles, wrap: str, status: http.HTTPStatus
) -> None:
    first = files.answer("/")
    again = files.answer("/", wrap.format(first.headers["ETag"]))
    assert again.status == status
    assert bool(again.body) == (status == http.HTTPStatus.OK)


def test_nothing_inline_and_nothing_from_elsewhere_may_run(files: PageFiles) -> None:
    answer = files.answer("/")
    policy = dict(
        rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_the_installed_page_is_complete() -> None:
    on_disk = {
        "/page/" + path.relative_to(PAGE).as_posix()
        for path in PAGE.rglob("*")
        if path.suffix in {".js", ".css", ".html", ".json"}
    }
    recordings = {f"/page/demo/{path.name}" for path in DEMO.iterdir() if path.suffix != ".md"}
    assert page_files().paths == {"/", *on_disk, *recordings}


async def test_a_server_answers_with_the_page(kit: SimpleNamespace) -> None:
    async with Server(kit.FakeModel()) as server:
        await server.start()
        status, headers, body = await fetch(server, "/")
        assert status == 200
        assert body == (PAGE / "index.html").read_bytes()
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        known = {"If-None-Match": headers["ETag"]}
        assert (await fetch(server, "/", known))[0] == 304
        description = (await fetch(server, "/page/demo/demo.json"))[2]
        assert len(json.loads(description)["recordings"]) == 2
        assert (await fetch(server, "/page/nothing.js"))[0] == 404
        assert (await fetch(server, "/page/../page/index.html"))[0] == 404
        status, head, body = await fetch(server, "/", method="HEAD")
        assert (status, body) == (200, b"")
        assert head["Content-Length"] == headers["Content-Length"]
        assert (await fetch(server, "/", method="POST"))[0] == 405


async def fetch(
    server: Server, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, Mapping[str, str], bytes]:
    def ask() -> tuple[int, Mapping[str, str], bytes]:
        url = f"http://127.0.0.1:{server.port}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(url, headers=headers or {}, method=method)
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    return await asyncio.to_thread(ask)
