"""Bundles of the Hugging Face hub: fetched once, kept in its client's cache, checked by hashes.

A name is ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION`` for a branch, a tag or a commit. What is
in the cache is used without asking for anything newer. Only the files of a bundle are fetched,
whatever else is beside them.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from cnerta.models.errors import BundleError

__all__ = ["HUB_PREFIX", "fetch_bundle", "is_hub_name"]

logger = logging.getLogger(__name__)

HUB_PREFIX: Final = "hf:"
_NAME: Final = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?", re.ASCII)


def is_hub_name(name: str) -> bool:
    """Whether a bundle is named as one of the hub."""
    return name.startswith(HUB_PREFIX)


def fetch_bundle(name: str, files: Sequence[str], needed: str) -> Path:
    """Find a bundle of the hub in this machine's cache, or fetch it.

    Args:
        name: Such as ``hf:owner/name``.
        files: What a bundle may have.
        needed: The file that it always has.

    Returns:
        The folder in the cache.

    Raises:
        BundleError: It is no such name, or is not in the cache and cannot be fetched.
    """
    named = _NAME.fullmatch(name)
    if named is None:
        raise BundleError(f"expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got {name!r}")
    repository, revision = named.groups()
    hub = _client()
    wanted = {"revision": revision, "allow_patterns": list(files)}
    try:
        folder = Path(hub.snapshot_download(repository, local_files_only=True, **wanted))
        if (folder / needed).is_file():
            return folder
    except Exception as error:  # the kinds differ between its versions; then it is not there
        logger.debug("%s is not in the cache: %s", name, error)
    logger.info("fetching the bundle %s from the Hugging Face hub; this is done once", name)
    try:
        folder = Path(hub.snapshot_download(repository, **wanted))
    except Exception as error:  # no connection, no such model, no room: its client has many kinds
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        said = said.removeprefix("Got: ").rstrip(".")
        raise BundleError(
            f"expected to fetch the bundle {name} once from the Hugging Face hub, got: {said}. "
            f"Without internet, fetch it elsewhere (hf download {repository}) and name its folder"
        ) from error
    if not (folder / needed).is_file():
        raise BundleError(f"expected a bundle with {needed} at {name}, got something else")
    return folder


def _client() -> ModuleType:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise BundleError(
            "expected the Python package huggingface-hub to fetch a bundle, got none: "
            "pip install 'cnerta-stream[hub]'"
        ) from error
