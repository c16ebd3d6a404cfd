"""What is uploaded can be fetched again, through the hub's own client."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from cnerta import models
from cnerta.export.hub_push import push
from cnerta.models.errors import ConfigError

from ..fake_hub import NAME, Hub, run_with_hub

CHECKPOINT = Path(models.__file__).parent / "checkpoints" / "fast"
EXPORT = "import sys; from cnerta.export.cli import main; main()"
LOAD = (
    "import sys; from pathlib import Path\n"
    "from cnerta.models import CnertaError, load_checkpoint\n"
    "try: print(load_checkpoint(Path(sys.argv[1])).name)\n"
    "except CnertaError as error: print('refused:', error)\n"
)


def test_a_checkpoint_is_uploaded_and_fetched_again(tmp_path: Path) -> None:
    hub = Hub({"another.txt": b"stays"})
    folder, name = tmp_path / "folder", f"hf:{NAME}"
    with hub.serving() as endpoint:
        arguments = [str(CHECKPOINT), "--hub", str(folder), "--push", name, "--private"]
        run_with_hub(endpoint, tmp_path / "a", EXPORT, *arguments)
        assert hub.files.keys() == {path.name for path in folder.iterdir()} | {"another.txt"}
        assert hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
        (made,) = hub.made
        # Two ways of the client's versions to say it.
        assert made.get("visibility") == "private" or made.get("private") is True
        assert "Bearer hf_of_the_test" in hub.tokens
        # Another machine.
        assert run_with_hub(endpoint, tmp_path / "b", LOAD, name) == "cnerta-fast"
        # Without a second folder it is taken for what it is, a checkpoint.
        again = tmp_path / "again"
        run_with_hub(endpoint, tmp_path / "b", EXPORT, name, "--hub", str(again))
        assert (again / "model.json").read_bytes() == (folder / "model.json").read_bytes()
        changed = bytearray(hub.files["model.safetensors"])
        changed[-1] ^= 1
        hub.files["model.safetensors"] = bytes(changed)
        said = run_with_hub(endpoint, tmp_path / "c", LOAD, name)
        assert said.startswith("refused: expected model.safetensors with sha256")
        hub.files = {"bundle.json": b"{}"}
        said = run_with_hub(endpoint, tmp_path / "d", LOAD, name)
        assert "expected a checkpoint with model.json" in said


def test_who_may_not_upload_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A model")
    code = (
        "import sys; from pathlib import Path\n"
        "from cnerta.export import push\n"
        "from cnerta.models import CnertaError\n"
        "try: push(Path(sys.argv[1]), sys.argv[2])\n"
        "except CnertaError as error: print('refused:', error)\n"
    )
    with Hub({}, refuses=True).serving() as endpoint:
        said = run_with_hub(endpoint, tmp_path / "cache", code, str(tmp_path), f"hf:{NAME}")
    assert said.startswith(f"refused: expected to upload {tmp_path} to hf:{NAME}, got: ")
    assert "hf auth login" in said


def test_what_cannot_be_uploaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a folder for the hub with README\.md"):
        push(tmp_path, "hf:a/b")
    with pytest.raises(ConfigError, match="got the revision 'v1'"):
        push(tmp_path, "hf:a/b@v1")
    with pytest.raises(ConfigError, match="expected hf:OWNER/NAME"):
        push(tmp_path, "a/b")
