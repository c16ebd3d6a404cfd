"""Where a model's caches are kept."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.bundle import ACOUSTIC_FILE, Bundle
from cnerta.models.runtime.encoding.device import DeviceEncoder, DevicePlan
from cnerta.models.runtime.encoding.host import HostEncoder
from cnerta.models.runtime.encoding.kept_graphs import SlotShape, table_graph
from cnerta.models.runtime.encoding.state import ChunkEncoder
from cnerta.models.runtime.onnx_sessions import ChosenDevice, open_graph

__all__ = ["BUCKETS", "choose_encoder"]

logger = logging.getLogger(__name__)

BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
"""Sizes of batches on a GPU: for each there are plans that were made before, and the memory."""
_USUAL_STREAMS: Final = 512
_LEAST_LAYERS: Final = 2
"""With one, the table could be written before it is read, see :mod:`kept_graphs`."""


def choose_encoder(
    bundle: Bundle,
    acoustic: Any,
    device: ChosenDevice,
    *,
    resident_streams: int | None = None,
    threads: int = 1,
) -> ChunkEncoder | None:
    """What encodes the chunks of a bundle's model; None: it takes no chunks.

    Args:
        bundle: Whose model.
        acoustic: Session of its acoustic graph.
        device: Where that runs.
        resident_streams: Streams whose caches stay on the device; 0: none do. None: as many as are
            usual on CUDA, none elsewhere. TensorRT may take the table for its own memory, so it has
            none.
        threads: CPU threads of one call.
    """
    if not bundle.geometry.streaming:
        return None
    host = HostEncoder(bundle.geometry, acoustic)
    is_cuda = device == "cuda"
    streams = resident_streams
    if streams is None:
        streams = _USUAL_STREAMS if is_cuda else 0
    if not streams or device == "tensorrt" or bundle.geometry.layers < _LEAST_LAYERS:
        return host
    plan = DevicePlan(
        partial(open_graph, device=device, threads=threads),
        "cuda" if is_cuda else "cpu",
        streams,
        BUCKETS if is_cuda else (),
    )
    try:
        graph = table_graph(bundle.path / ACOUSTIC_FILE, bundle.geometry)
        encoder = DeviceEncoder(graph, bundle.geometry, host, plan)
        encoder.warm()
    except InferenceError as error:
        logger.warning("caches of streams go through this process's memory: %s", error)
        return host
    except Exception as error:
        # onnxruntime raises its own unexported exception types.
        logger.warning("caches of streams do not fit on the device: %s", error)
        return host
    size = SlotShape.of(bundle.geometry).bytes * (1 + streams) / 2**20
    logger.info("caches of up to %d streams stay on the device: %.0f MB", streams, size)
    return encoder
