"""Fixtures shared by all tests. Everything is made here: no downloads, no data from elsewhere."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's business.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


LONGEST = (
    "tests/docs/test_commands.py",
    "tests/test_every_recipe.py",
    "tests/train/table/test_table.py",
    "tests/streamer/commands/test_stream.py",
    "tests/streamer/workers/test_processes.py",
    "tests/export/test_export.py",
)
"""Modules that take longest, the longest first; the folders of models and training follow."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest: each process has whole modules, and none is to wait for one.

    See ``--dist`` in the Makefile. The order within a module stays.
    """
    rank = {name: number for number, name in enumerate(LONGEST)}
    slow_folders = ("tests/train/", "tests/models/", "tests/export/", "tests/test_")

    def place(item: pytest.Item) -> tuple[int, bool]:
        module = item.path.relative_to(config.rootpath).as_posix()
        return rank.get(module, len(rank)), not module.startswith(slow_folders)

    items.sort(key=place)


def pytest_addoption(parser: pytest.Parser) -> None:
    """See tests/golden/test_golden.py."""
    parser.addoption(
        "--rewrite-golden", action="store_true", help="keep today's answers of the bundles"
    )


TINY_TEXT = "今天在南京市长江大桥上看到了北京大学的江大桥市长，李明说：很好。"


@pytest.fixture(scope="session")
def tiny_model() -> object:
    """A model of the real architecture in small, with random weights."""
    torch = pytest.importorskip("torch")
    from cnerta.models.config import (
        AcousticConfig,
        CtcConfig,
        FusionConfig,
        ModelConfig,
        TextConfig,
    )
    from cnerta.models.networks.tagger import SpeechTagger
    from cnerta.models.runtime.labels import LabelScheme, Span
    from cnerta.models.runtime.vocabulary import Vocabulary

    torch.manual_seed(0)
    readings = {
        c: [f"{chr(97 + i % 26)}a{1 + i % 4}"] for i, c in enumerate(sorted(set(TINY_TEXT)))
    }
    readings["长"] = ["chang2", "zhang3"]
    nested = ([Span(0, 4, "ORG"), Span(0, 2, "LOC"), Span(4, 6, "PER")], 6)
    config = ModelConfig(
        acoustic=AcousticConfig(
            mel_bins=40, conv_channels=4, width=16, layers=2, heads=2, feed_forward=32,
            left_frames=10, chunk_frames=4,
        ),
        text=TextConfig(embedding=8, hidden=16),
        fusion=FusionConfig(
            width=16, heads=2, feed_forward=32, guided=True, pause_context=3, context=8
        ),
        ctc=CtcConfig(units="pronunciations"),
    )  # fmt: skip
    vocabulary = Vocabulary.build(TINY_TEXT, readings)
    return SpeechTagger(config, vocabulary, LabelScheme.nested([nested])).eval()


@pytest.fixture(scope="session")
def tiny_bundle(
    pytestconfig: pytest.Config,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny model as an exported bundle, through the project's own exporter.

    Writing it takes seconds on a quiet machine and minutes on a busy one. So one process writes it,
    and those beside it and the next runs copy it, until something that makes it changes.
    """
    pytest.importorskip("torch")
    # Without pytest's cache (`-p no:cacheprovider`) each run writes it for itself.
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    folder = cache.mkdir("tiny-bundle") if cache else tmp_path_factory.mktemp("kept")
    kept = folder / _made_by()
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _export_tiny(request.getfixturevalue("tiny_model"), kept)
    out = tmp_path_factory.mktemp("bundle") / "tiny"
    shutil.copytree(kept, out)
    return out


def _made_by() -> str:
    """Digest of all that the tiny bundle depends on: code, and what it is written and run with."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for folder in ("models", "export"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    for package in ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu"):
        try:
            digest.update(f"{package} {version(package)}".encode())
        except PackageNotFoundError:
            continue
    return digest.hexdigest()[:16]


def _export_tiny(model: object, out: Path) -> None:
    from cnerta.export.write import export_bundle
    from cnerta.models.networks.checkpoint import Checkpoint
    from cnerta.models.networks.tagger import SpeechTagger

    assert isinstance(model, SpeechTagger)
    # A run that is cut off leaves nothing that looks whole.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        export_bundle(Checkpoint("tiny", model, {"recipe": "none"}, {}), Path(folder) / "tiny")
        (Path(folder) / "tiny").rename(out)
