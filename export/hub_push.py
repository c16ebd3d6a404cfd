"""Uploads a folder that was made for the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from cnerta.export.hub_folder import CARD_FILE
from cnerta.models.errors import ConfigError
from cnerta.models.runtime.hub import split_hub_name

__all__ = ["push"]

_MESSAGE: Final = "Upload a model of cnerta-stream"


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload a folder, in one commit; what is there under other names stays.

    Who may is known by the hub's own ways: ``hf auth login``, or ``HF_TOKEN``.

    Args:
        folder: What :func:`cnerta.export.hub_folder.write_hub_folder` or
            :func:`~cnerta.export.hub_folder.write_checkpoint_folder` wrote.
        name: ``hf:OWNER/NAME``. The model is made if the hub has none of that name.
        private: A model that is made is seen by its owner only.

    Returns:
        Address of the commit.

    Raises:
        ConfigError: The folder or the name is none, or the hub does not take it.
    """
    repository, revision = split_hub_name(name, ConfigError)
    if revision is not None:
        raise ConfigError(f"expected hf:OWNER/NAME to upload to, got the revision {revision!r}")
    if not (folder / CARD_FILE).is_file():
        raise ConfigError(f"expected a folder for the hub with {CARD_FILE}, got {folder}")
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=_MESSAGE)
    except (HfHubHTTPError, OSError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"expected to upload {folder} to {name}, got: {said} (hf auth login tells the hub who "
            "you are)"
        ) from error
    return str(commit.commit_url)
