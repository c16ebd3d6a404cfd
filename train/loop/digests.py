"""Hashes of what decides a run: of its recipe as far as it is followed, and of its data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from cnerta.train.data.examples import Example
from cnerta.train.data.held import recording_path
from cnerta.train.recipe import Recipe

__all__ = ["examples_digest", "recipe_digest"]


def recipe_digest(recipe: Recipe, stage: int) -> str:
    """Hash of all in a recipe that decides a run up to and including a stage.

    Only of what differs from the defaults, so that a setting that is new in a later version does
    not make every run another one.
    """
    stages = recipe.stages[: stage + 1]
    used = {n for s in stages for n in (*s.train, *s.dev)}
    data = {n: source for n, source in sorted(recipe.data.items()) if n in used}
    followed = msgspec.structs.replace(recipe, stages=stages, data=data)
    return hashlib.sha256(msgspec.json.encode(_unlike_defaults(followed))).hexdigest()


def _unlike_defaults(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        changed = {}
        for field in msgspec.structs.fields(value):
            own, make = getattr(value, field.name), field.default_factory
            if own != (field.default if make is msgspec.NODEFAULT else make()):
                changed[field.name] = _unlike_defaults(own)
        return changed
    if isinstance(value, dict):
        return {k: _unlike_defaults(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unlike_defaults(v) for v in value]
    return value


def examples_digest(examples: Sequence[Example]) -> str:
    """Hash of what was read; recordings count by name."""
    digest = hashlib.sha256()
    for e in examples:
        recording = recording_path(e.audio)
        name = recording and recording.name
        row = (e.text, e.spans, name, e.times_ms, e.readings, e.isolated)
        digest.update((repr(row) + e.corpus).encode())
    return digest.hexdigest()
