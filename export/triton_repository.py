"""A bundle as a model repository of NVIDIA Triton.

    DIR/cnerta-fast-acoustic/config.pbtxt   each stream a sequence, its cache the sequence's state
    DIR/cnerta-fast-acoustic/1/model.onnx
    DIR/cnerta-fast-tagger/config.pbtxt     requests put together as they come
    DIR/cnerta-fast-tagger/1/model.onnx

Vocabulary, CRF and the rest of the bundle stay with ``cnerta-serve``, which needs the bundle too.
"""

from __future__ import annotations

from pathlib import Path

from cnerta.export.triton_config import TritonOptions, model_config
from cnerta.models.errors import ConfigError
from cnerta.models.files import write_atomically
from cnerta.models.runtime.bundle import ACOUSTIC_FILE, TAGGER_FILE, load_bundle
from cnerta.models.runtime.encoding.kept_graphs import sequence_graph
from cnerta.models.runtime.model_repository import GraphKind, model_name

__all__ = ["write_model_repository"]

_VERSION = "1"


def write_model_repository(
    bundle_path: Path, out: Path, options: TritonOptions | None = None
) -> list[Path]:
    """Write the models of a bundle.

    Args:
        bundle_path: The bundle's folder.
        out: The repository, made if missing. Models of other names in it stay as they are.
        options: How Triton is to run them; None: as usual.

    Returns:
        The models' folders.

    Raises:
        BundleError: The bundle cannot be used.
        ConfigError: The repository cannot be written.
    """
    bundle = load_bundle(bundle_path)
    graphs: dict[GraphKind, bytes] = {"tagger": (bundle_path / TAGGER_FILE).read_bytes()}
    if bundle.geometry.streaming:
        graphs["acoustic"] = sequence_graph(bundle_path / ACOUSTIC_FILE, bundle.geometry)
    else:
        graphs["acoustic"] = (bundle_path / ACOUSTIC_FILE).read_bytes()
    folders = []
    try:
        for kind, content in graphs.items():
            folder = out / model_name(bundle, kind)
            (folder / _VERSION).mkdir(parents=True, exist_ok=True)
            write_atomically(folder / _VERSION / "model.onnx", content)
            # Last: a folder without it is no model.
            config = model_config(bundle, kind, options or TritonOptions())
            write_atomically(folder / "config.pbtxt", config.encode())
            folders.append(folder)
    except OSError as error:
        raise ConfigError(f"expected a folder to write in, got {out}: {error}") from error
    return folders
