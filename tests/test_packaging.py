"""What is installed is what is in the tree, and serving needs no torch."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("export", "models", "streamer", "train")
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    ".pre-commit-config.yaml",
    ".typing",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "README.md",
    "docs",
    "pyproject.toml",
    "tests",
    *PACKAGES,
}
OF_FRAMEWORKS = {Path("integrations", name) for name in ("livekit.py", "pipecat.py")}
"""They import what only extras install."""
HEAVY = ("torch", "torchaudio", "transformers", "torchcrf", "tensorboard", "matplotlib")


def tracked(*folders: str) -> list[str]:
    """Files that git tracks or would track, relative to the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    listed = subprocess.run(
        [*command, *folders], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a clean copy, since leftovers in build/ would end up in it."""
    copy = tmp_path_factory.mktemp("source")
    for name in tracked(*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


def test_wheel_holds_exactly_the_files_of_the_four_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        inside = {name for name in opened.namelist() if ".dist-info/" not in name}
    # Intermediate weights are for who trains from the tree.
    files = {name for name in tracked(*PACKAGES) if not name.startswith("models/checkpoints/")}
    assert inside == {f"cnerta/{name}" for name in files}


def test_wheel_has_the_licence_and_the_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        commands = opened.read(entry_points).decode()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for command in ("serve", "stream", "train", "evaluate", "export"):
        assert f"cnerta-{command} = cnerta." in commands


def test_every_command_has_its_module() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    missing = [
        target
        for target in scripts.values()
        if importlib.util.find_spec(target.split(":")[0]) is None
    ]
    assert not missing


def test_no_stray_file_at_the_top() -> None:
    stray = {name.split("/")[0] for name in tracked()} - TOP_LEVEL
    assert not stray


def test_type_checkers_see_the_packages_through_links() -> None:
    for package in PACKAGES:
        link = ROOT / ".typing" / "cnerta" / package
        assert link.is_symlink()
        assert link.resolve() == ROOT / package


def loaded_after(imports: str) -> set[str]:
    """Top-level modules that a fresh process has after some imports."""
    script = f"import sys\n{imports}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_nothing_in_the_streamer_imports_torch() -> None:
    modules = sorted(
        ".".join(("cnerta", *path.relative_to(ROOT).with_suffix("").parts))
        for path in (ROOT / "streamer").rglob("*.py")
        if path.stem != "__init__" and path.relative_to(ROOT / "streamer") not in OF_FRAMEWORKS
    )
    assert "cnerta.streamer.serving.server" in modules
    loaded = loaded_after(f"import {', '.join(modules)}")
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)
    assert "sounddevice" not in loaded, "only the microphone needs PortAudio"


def test_client_of_a_server_needs_no_onnx_runtime() -> None:
    loaded = loaded_after("import cnerta.streamer.commands.stream, cnerta.streamer.client.stream")
    assert "onnxruntime" not in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_a_package_is_light() -> None:
    loaded = loaded_after("import cnerta.models, cnerta.train, cnerta.export, cnerta.streamer")
    assert loaded.isdisjoint({*HEAVY, "numpy", "onnxruntime"})


def test_the_lock_file_has_the_serving_set_with_hashes_and_says_not_where_from() -> None:
    lock = (ROOT / ".ci" / "requirements-serve.txt").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--index-url" not in lock
    pinned = {}
    for entry in re.findall(r"^[a-z](?:.*\\\n)*.*", lock, re.MULTILINE):
        requirement = Requirement(entry.partition("\\")[0].strip())
        assert "--hash=sha256:" in entry, requirement.name
        (version,) = requirement.specifier
        assert version.operator == "=="
        pinned[canonicalize_name(requirement.name)] = version.version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])
