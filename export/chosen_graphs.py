"""Some of the graphs of a bundle, by name."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ChosenGraphs"]


class ChosenGraphs(StrEnum):
    """Which graphs of a bundle something is done to."""

    NONE = "none"
    ACOUSTIC = "acoustic"
    TAGGER = "tagger"
    BOTH = "both"

    @property
    def has_acoustic(self) -> bool:
        """Whether the acoustic graph is one of them."""
        return self in (ChosenGraphs.ACOUSTIC, ChosenGraphs.BOTH)

    @property
    def has_tagger(self) -> bool:
        """Whether the tagger is one of them."""
        return self in (ChosenGraphs.TAGGER, ChosenGraphs.BOTH)

    def overlaps(self, other: ChosenGraphs) -> bool:
        """Whether both have a graph."""
        return (self.has_acoustic and other.has_acoustic) or (self.has_tagger and other.has_tagger)
