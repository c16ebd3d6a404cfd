"""Bundles of the Hugging Face hub, through its own client, from a hub of this test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cnerta.models.errors import BundleError
from cnerta.models.runtime import hub
from cnerta.models.runtime.bundle import bundle_files, default_bundle_path, find_bundle, load_bundle

from ...fake_hub import NAME, Hub, run_with_hub

pytest.importorskip("huggingface_hub")


def fetched(endpoint: str, cache: Path, name: str = f"hf:{NAME}") -> str:
    """What a process of its own says of a bundle."""
    code = (
        "import sys; from pathlib import Path\n"
        "from cnerta.models.errors import BundleError\n"
        "from cnerta.models.runtime.bundle import find_bundle, load_bundle\n"
        "try: print(load_bundle(find_bundle(Path(sys.argv[1]))).name)\n"
        "except BundleError as error: print('refused:', error)\n"
    )
    return run_with_hub(endpoint, cache, code, name)


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

    monkeypatch.setattr(hub, "hub_client", lambda _: Client())
    assert load_bundle(find_bundle(Path("hf:a/b@v1.2"))).name == "cnerta-fast"
    (only,) = asked
    assert (only["name"], only["revision"], only["local_files_only"]) == ("a/b", "v1.2", True)
    assert "bundle.json" in only["allow_patterns"]


def test_without_the_client_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"pip install 'cnerta-stream\[hub\]'"):
        find_bundle(Path("hf:a/b"))
