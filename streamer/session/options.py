"""What a client asked for, checked against what the model knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from msgspec import UNSET

from cnerta.models.runtime.bundle import Bundle
from cnerta.streamer.session.stabiliser import StabiliserOptions
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import SessionStart, SessionUpdate
from cnerta.streamer.wire.parts import MinStatus

__all__ = ["AnswerOptions", "check_labels"]


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What the client wants to be told.

    Attributes:
        labels: Entity types to send; None: all.
        nested: Whether inner entities are sent (rule 5).
        interim: Whether entities of unfinished text are sent.
        stabiliser: When an entity is stable.
        readings: Whether a final tells how characters were pronounced.
        min_status: From which status on an entity is told of.
        hold_ms: How long text is held back at most until it may be shown; None: it is not.
        apply_suggestions: Whether texts are told with the glossary's spelling, too.
    """

    labels: frozenset[str] | None
    nested: bool
    interim: bool
    stabiliser: StabiliserOptions
    readings: bool = False
    min_status: MinStatus = "tentative"
    hold_ms: int | None = None
    apply_suggestions: bool = False

    @classmethod
    def starting(cls, start: SessionStart, bundle: Bundle) -> Self:
        """The options that a session starts with.

        Raises:
            ProtocolError: The client asks for labels or readings that the model does not know.
        """
        return cls(
            labels=_checked_labels(start.labels, bundle),
            nested=start.nested,
            interim=start.interim,
            stabiliser=StabiliserOptions(max_delay_ms=start.max_delay_ms),
            readings=_checked_readings(start.readings, bundle),
            min_status=start.min_status,
            hold_ms=start.hold_ms,
            apply_suggestions=start.apply_suggestions,
        )

    def updated(self, update: SessionUpdate, bundle: Bundle) -> Self:
        """The options with what an update says in their place.

        Raises:
            ProtocolError: The client asks for labels or readings that the model does not know.
        """
        options = self
        if update.labels is not UNSET:
            options = replace(options, labels=_checked_labels(update.labels, bundle))
        if update.nested is not UNSET:
            options = replace(options, nested=update.nested)
        if update.interim is not UNSET:
            options = replace(options, interim=update.interim)
        if update.min_status is not UNSET:
            options = replace(options, min_status=update.min_status)
        if update.hold_ms is not UNSET:
            options = replace(options, hold_ms=update.hold_ms)
        if update.apply_suggestions is not UNSET:
            options = replace(options, apply_suggestions=update.apply_suggestions)
        if update.max_delay_ms is not UNSET:
            stabiliser = replace(options.stabiliser, max_delay_ms=update.max_delay_ms)
            options = replace(options, stabiliser=stabiliser)
        if update.readings is not UNSET:
            options = replace(options, readings=_checked_readings(update.readings, bundle))
        return options


def check_labels(labels: Iterable[str], bundle: Bundle) -> None:
    """Refuse labels that the model does not know.

    Raises:
        ProtocolError: There is one.
    """
    known = bundle.scheme.types
    unknown = next((label for label in labels if label not in known), None)
    if unknown is not None:
        raise ProtocolError(
            ErrorName.UNKNOWN_LABEL,
            f"expected labels among {', '.join(known)}, got {unknown[:60]!r}",
        )


def _checked_labels(labels: list[str] | None, bundle: Bundle) -> frozenset[str] | None:
    if labels is None:
        return None
    check_labels(labels, bundle)
    return frozenset(labels)


def _checked_readings(wanted: bool, bundle: Bundle) -> bool:
    if wanted and not bundle.has_readings:
        raise ProtocolError(
            ErrorName.UNSUPPORTED_READINGS,
            f"expected no readings, which the model {bundle.name} cannot tell, got a request for "
            "them",
        )
    return wanted
