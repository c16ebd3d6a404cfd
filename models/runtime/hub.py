"""Models of the Hugging Face hub: fetched once, kept in its client's cache, checked by hashes.

A name is ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION`` for a branch, a tag or a commit. What is
in the cache is used without asking for anything newer. Only the files of a bundle, or of a
checkpoint, are fetched, whatever else is beside them.
"""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from cnerta.models.errors import CnertaError

__all__ = ["HUB_PREFIX", "HubContent", "fetch", "hub_client", "is_hub_name", "split_hub_name"]

logger = logging.getLogger(__name__)

HUB_PREFIX: Final = "hf:"
_NAME: Final = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubContent:
    """What a model on the hub can be.

    Attributes:
        kind: In a word, for messages.
        files: What may belong to it.
        needed: The file that it always has.
        error: Says that it cannot be had.
    """

    kind: str
    files: tuple[str, ...]
    needed: str
    error: type[CnertaError]


def is_hub_name(name: str) -> bool:
    """Whether a model is named as one of the hub."""
    return name.startswith(HUB_PREFIX)


def split_hub_name(name: str, error: type[CnertaError]) -> tuple[str, str | None]:
    """``OWNER/NAME`` and the revision, if one is named.

    Raises:
        CnertaError: Of the kind ``error``: it is no name of the hub.
    """
    named = _NAME.fullmatch(name)
    if named is None:
        raise error(f"expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got {name!r}")
    return named[1], named[2]


def fetch(name: str, content: HubContent) -> Path:
    """Find a model of the hub in this machine's cache, or fetch it.

    Args:
        name: Such as ``hf:owner/name``.
        content: What it is to be.

    Returns:
        The folder in the cache.

    Raises:
        CnertaError: Of the content's kind: it is no such name, or is not in the cache and cannot be
            fetched.
    """
    repository, revision = split_hub_name(name, content.error)
    hub = hub_client(content.error)
    wanted = {"revision": revision, "allow_patterns": list(content.files)}
    try:
        folder = Path(hub.snapshot_download(repository, local_files_only=True, **wanted))
        if (folder / content.needed).is_file():
            return folder
    except Exception as error:  # the kinds differ between its versions; then it is not there
        logger.debug("%s is not in the cache: %s", name, error)
    logger.info(
        "fetching the %s %s from the Hugging Face hub; this is done once", content.kind, name
    )
    try:
        folder = Path(hub.snapshot_download(repository, **wanted))
    except Exception as error:  # no connection, no such model, no room: its client has many kinds
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        said = said.removeprefix("Got: ").rstrip(".")
        raise content.error(
            f"expected to fetch the {content.kind} {name} once from the Hugging Face hub, got: "
            f"{said}. Without internet, fetch it elsewhere (hf download {repository}) and name its "
            "folder"
        ) from error
    if not (folder / content.needed).is_file():
        raise content.error(
            f"expected a {content.kind} with {content.needed} at {name}, got something else"
        )
    return folder


def hub_client(error: type[CnertaError]) -> ModuleType:
    """The hub's own client.

    Raises:
        CnertaError: Of the kind ``error``: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as missing:
        raise error(
            "expected the Python package huggingface-hub for models of the hub, got none: "
            "pip install 'cnerta-stream[hub]'"
        ) from missing
