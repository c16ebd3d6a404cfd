"""What a server of models (NVIDIA Triton) calls the graphs of a bundle, and how it is asked.

``cnerta-export --triton`` writes what is said here, and the engine that talks to Triton expects it.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from cnerta.models.files import file_sha256
from cnerta.models.runtime.bundle import ACOUSTIC_FILE, TAGGER_FILE, Bundle

__all__ = [
    "CHARACTERS_STEP",
    "FRAMES_STEP",
    "MATCHES_STEP",
    "MOST_BATCH",
    "SHA256_PARAMETER",
    "GraphKind",
    "graph_sha256",
    "model_name",
]

GraphKind = Literal["acoustic", "tagger"]

SHA256_PARAMETER: Final = "cnerta_graph_sha256"
"""Parameter of a model's configuration: of which file of a bundle it was made."""
MOST_BATCH: Final = 64
"""Rows of one call."""
CHARACTERS_STEP: Final = 16
"""Texts are filled up to a multiple of this: only requests of one shape are put together."""
MATCHES_STEP: Final = 32
"""Likewise the words found in a text."""
FRAMES_STEP: Final = 64
"""Likewise the frames of a window."""


def model_name(bundle: Bundle, kind: GraphKind) -> str:
    """What a graph is called, such as ``cnerta-fast-tagger``."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{bundle.name}-{kind}")


def graph_sha256(bundle: Bundle, kind: GraphKind) -> str:
    """Of the file that a graph was made of."""
    return file_sha256(bundle.path / {"acoustic": ACOUSTIC_FILE, "tagger": TAGGER_FILE}[kind])
