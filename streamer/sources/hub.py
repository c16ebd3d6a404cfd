"""Models that are fetched once from the Hugging Face hub and then kept."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from cnerta.streamer.errors import RecogniserMissingError
from cnerta.streamer.wire.addresses import redact

__all__ = ["fetch_model", "first_line", "import_package"]

log = logging.getLogger(__name__)


def import_package(name: str, extra: str) -> ModuleType:
    """Import a package that not everybody has installed.

    Args:
        name: Its module.
        extra: The extra of this package that installs it.

    Raises:
        RecogniserMissingError: It is not there or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # the latter where a shared library is missing
        raise RecogniserMissingError(
            f"expected the Python package {name} to recognise speech, got: {error}. Install it "
            f"with: pip install 'cnerta-stream[{extra}]'; or give the transcript yourself: "
            "--source lines takes a typed or piped line for each utterance"
        ) from error


def fetch_model(name: str, wanted: Sequence[str], extra: str) -> Path:
    """Find a model of the hub in this machine's cache, or fetch it with a progress bar.

    Args:
        name: Name of the model, as in ``owner/name``.
        wanted: Patterns of the files that are wanted.
        extra: The extra of this package that installs the hub's client.

    Returns:
        The folder in the cache.

    Raises:
        RecogniserMissingError: It is not in the cache and cannot be fetched.
    """
    hub = import_package("huggingface_hub", extra)
    patterns = list(wanted)
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        if all(any(folder.glob(pattern)) for pattern in patterns):
            return folder
    except Exception as error:  # the kinds differ between its versions; then it is not there
        log.debug("%s is not in the cache: %s", name, error)
    log.warning("fetching the model %s from the Hugging Face hub; this is done once", name)
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # no connection, no such model, no room: its client has many kinds
        raise RecogniserMissingError(
            f"expected to fetch the model {name} once from the Hugging Face hub, got: "
            f"{first_line(error)}. Without internet: fetch it on another machine (`hf download "
            f"{name}`) and name its folder, as in --source sherpa-onnx:FOLDER; or give the "
            "transcript yourself: --source lines takes a typed or piped line for each utterance"
        ) from error
    log.warning("the model is kept in %s", folder)
    return folder


def first_line(error: Exception) -> str:
    """What an error says first, without secrets of addresses; its name if it says nothing."""
    said = str(error).strip() or type(error).__name__
    return redact(said.splitlines()[0].rstrip(". "))
