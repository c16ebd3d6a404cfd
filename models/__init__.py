"""Networks, and the torch-free bundles that training, export and serving share.

Find entities with a bundle::

    from cnerta.models import Model, find_bundle, normalise

    model = Model.load(find_bundle(None))
    text = normalise("李娜在北京大学见到了张伟。")
    frames = model.encode_recording(samples)  # 16 kHz; no samples at all: from the text alone
    (answer,) = model.tag([text.text], [frames])
    for span in answer.spans:
        print(*text.original_range(span.start, span.end), span.label, span.confidence)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnerta.models.lazy import lazy_names

if TYPE_CHECKING:
    from cnerta.models.errors import CnertaError
    from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint
    from cnerta.models.runtime.bundle import Bundle, find_bundle, load_bundle
    from cnerta.models.runtime.decoding import ScoredSpan
    from cnerta.models.runtime.inference import Model, Tagged
    from cnerta.models.runtime.labels import Span
    from cnerta.models.text.normalisation import NormalisedText, normalise

__all__ = [
    "Bundle",
    "Checkpoint",
    "CnertaError",
    "Model",
    "NormalisedText",
    "ScoredSpan",
    "Span",
    "Tagged",
    "find_bundle",
    "load_bundle",
    "load_checkpoint",
    "normalise",
]

_MODULES = {
    "Bundle": "runtime.bundle",
    "Checkpoint": "networks.checkpoint",
    "CnertaError": "errors",
    "Model": "runtime.inference",
    "NormalisedText": "text.normalisation",
    "ScoredSpan": "runtime.decoding",
    "Span": "runtime.labels",
    "Tagged": "runtime.inference",
    "find_bundle": "runtime.bundle",
    "load_bundle": "runtime.bundle",
    "load_checkpoint": "networks.checkpoint",
    "normalise": "text.normalisation",
}

# Type checkers see the imports above, and that any other name is wrong.
if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
