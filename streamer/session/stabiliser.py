"""Decides when an entity of unfinished text is unlikely to change any more.

Readers prefer highlights that do not flicker. An entity starts tentative; it becomes stable when
several revisions in a row agreed on it, it is away from the live edge of the text, where the next
word may still extend it, and the model is confident; or when it has simply not changed for the
longest delay the client accepts. Only the final transcript makes it final.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Evidence", "StabiliserOptions", "is_stable"]


@dataclass(frozen=True, slots=True)
class StabiliserOptions:
    """When to call an entity stable.

    Attributes:
        max_delay_ms: An unchanged reading is stable after this time whatever else holds.
        agreeing_revisions: Revisions in a row that must give the same label to the same characters.
        edge_characters: Characters that must follow the entity.
        min_confidence: Least confidence, 0 to 1.
    """

    max_delay_ms: int = 700
    agreeing_revisions: int = 2
    edge_characters: int = 1
    min_confidence: float = 0.55


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about one entity.

    Attributes:
        agreements: Revisions in a row, the newest included, with this label on these characters.
        edge_distance: Characters between the entity's end and the end of the text.
        confidence: Of the newest revision, 0 to 1.
        age_ms: Time since this reading was first given.
    """

    agreements: int
    edge_distance: int
    confidence: float
    age_ms: float


def is_stable(evidence: Evidence, options: StabiliserOptions) -> bool:
    """Whether the entity may be shown as settled."""
    if evidence.age_ms >= options.max_delay_ms:
        return True
    return (
        evidence.agreements >= options.agreeing_revisions
        and evidence.edge_distance >= options.edge_characters
        and evidence.confidence >= options.min_confidence
    )
