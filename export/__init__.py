"""Trained checkpoint to ONNX bundle, with the parity check.

Export a checkpoint, with 8-bit weights in the acoustic encoder::

    from cnerta.export import ChosenGraphs, export_bundle
    from cnerta.models import load_checkpoint

    written = export_bundle(load_checkpoint(checkpoint), out, int8=ChosenGraphs.ACOUSTIC)
    print(written.bundle.name, written.acoustic_difference, written.tagger_difference)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnerta.models.lazy import lazy_names

if TYPE_CHECKING:
    from cnerta.export.chosen_graphs import ChosenGraphs
    from cnerta.export.hub_folder import (
        HubDescription,
        write_checkpoint_folder,
        write_hub_folder,
    )
    from cnerta.export.hub_push import push
    from cnerta.export.write import Export, export_bundle

__all__ = [
    "ChosenGraphs",
    "Export",
    "HubDescription",
    "export_bundle",
    "push",
    "write_checkpoint_folder",
    "write_hub_folder",
]

_MODULES = {
    "ChosenGraphs": "chosen_graphs",
    "Export": "write",
    "HubDescription": "hub_folder",
    "export_bundle": "write",
    "push": "hub_push",
    "write_checkpoint_folder": "hub_folder",
    "write_hub_folder": "hub_folder",
}

# Type checkers see the imports above, and that any other name is wrong.
if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
