"""A bundle whose graphs Triton runs, as a model."""

from __future__ import annotations

import logging
from pathlib import Path

from cnerta.models.runtime.bundle import load_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer.serving.triton.graphs import TritonTagger, TritonUtterances
from cnerta.streamer.serving.triton.sequences import TritonEncoder
from cnerta.streamer.serving.triton.server import TIMEOUT_S, TritonAddress, TritonServer

__all__ = ["load_from_triton"]

logger = logging.getLogger(__name__)


def load_from_triton(
    path: Path,
    address: TritonAddress,
    *,
    threads: int = 1,
    check: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> Model:
    """Load a bundle; its large graphs stay on Triton, the small ones run here.

    Args:
        path: The bundle's folder.
        address: Where Triton answers.
        threads: CPU threads of one call of what runs here.
        check: Compare with the golden answers in the bundle.
        timeout_s: How long a call of Triton may take.

    Raises:
        BundleError: The bundle cannot be used, is not the one that Triton has, or does not say
            there what it said when exported.
        InferenceError: Triton cannot be reached or has no such models, or a package is missing.
    """
    bundle = load_bundle(path)
    server = TritonServer(address, timeout_s=timeout_s)
    tagger = TritonTagger(server, server.check_model(bundle, "tagger"))
    name = server.check_model(bundle, "acoustic")
    acoustic = TritonUtterances(server, name, bundle.geometry.hop_samples)
    encoder = TritonEncoder(server, name, bundle.geometry) if bundle.geometry.streaming else None
    logger.info("Triton at %s runs the graphs of bundle %s", address, bundle.name)
    return Model.assemble(bundle, acoustic, tagger, encoder=encoder, threads=threads, check=check)
