"""Recipes: everything that decides a training run, as one value read from TOML.

A recipe names its data sources once (``[data.NAME]``) and trains in stages (``[[stages]]``), each
with its own task, sources and learning rate. ``--set stages.0.epochs=3`` changes single values.

``extends = "bilstm-crf"`` starts from another recipe: tables are merged key by key, anything else
(also a list, such as the stages) takes the place of what was there. Name and source are a recipe's
own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cnerta.models.config import ModelConfig
from cnerta.models.errors import ConfigError

__all__ = ["Recipe", "Source", "Stage", "Task", "load_recipe", "recipe_files", "recipe_names"]

_PAPER = "paper/"

Task = Literal["acoustic", "entities"]
OptimiserKind = Literal["adam", "adamw"]
RateSchedule = Literal["linear", "epochs"]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One data source.

    Attributes:
        format: ``cnerta`` (the corpus' JSON lines), ``aishell-ner`` (text with brackets),
            ``manifest`` (JSON lines with audio beside them), ``kaldi`` (a data folder with ``text``
            and ``wav.scp``), ``lhotse`` (manifests of cuts), ``huggingface`` (a data set),
            ``shards`` (tar files in WebDataset's layout) or ``words`` (a folder of single-word
            recordings).
        path: File or folder, relative to ``--data-root``; for ``lhotse`` and ``shards`` also a
            pattern of files, such as ``shards/*.tar``, and for ``huggingface`` a name on the hub.
        stream: For ``lhotse``, ``huggingface`` and ``shards``: read it anew in each epoch, shard by
            shard, and hold no more of it than ``shuffle`` of a stage says. For training only.
        split: For ``huggingface``: such as ``train``; needed where there are several.
        text_field: For ``huggingface`` and ``shards``: field that holds the text; default ``text``,
            ``sentence``, ``transcription`` or ``transcript``.
        audio_field: For ``huggingface``: field that holds the recording; default the one of its
            type.
        audio_root: For ``cnerta`` and ``aishell-ner``: where the recordings are (AISHELL-1's own
            layout, unpacked or not, or a flat folder); none: text only.
        allow_missing: Leave rows out whose recording is missing or, by AISHELL-1's transcripts,
            says something else. Otherwise they are an error.
        entity_field: Field that holds the entities.
        where: Keep rows whose field has one of these values, such as ``split = ["train80"]``.
        exclude: Drop rows whose field has one of these values.
        exclude_texts_of: Drop sentences that are also in these other sources of the recipe, by
            their text or by their recording's name, as those that the model is measured on.
        longest: Cut longer texts at punctuation into pieces of at most so many characters; 0 for
            not. For text only.
        nameless: Share of the texts without an entity that is kept, evenly spread.
        corpus: One character that is put before each text, so that the model knows by whose
            conventions it is annotated; none for those that the model is to have. For text only.
        join: Join up to this many recordings to one, in random order with short pauses.
        repeat: How often an epoch goes through the source.
        speech: Use the recordings.
        limit: Use the first so many rows; 0 for all.
    """

    format: Literal[
        "cnerta", "aishell-ner", "manifest", "kaldi", "lhotse", "huggingface", "shards", "words"
    ]
    path: str
    stream: bool = False
    split: str = ""
    text_field: str = ""
    audio_field: str = ""
    audio_root: str = ""
    allow_missing: bool = False
    entity_field: str = ""
    where: dict[str, list[str]] = {}
    exclude: dict[str, list[str]] = {}
    exclude_texts_of: list[str] = []
    longest: Annotated[int, msgspec.Meta(ge=0)] = 0
    nameless: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    corpus: Annotated[str, msgspec.Meta(max_length=1)] = ""
    join: int = 1
    repeat: int = 1
    speech: bool = True
    limit: int = 0

    def __post_init__(self) -> None:
        """Refuse what would be silently ignored."""
        if self.stream:
            if self.format not in ("lhotse", "huggingface", "shards"):
                raise ValueError(
                    f"expected lhotse, huggingface or shards with stream, got {self.format}"
                )
            if self.join != 1 or self.limit:
                raise ValueError("expected neither join nor limit with stream, got some")
        if (self.split or self.audio_field) and self.format != "huggingface":
            raise ValueError(f"expected huggingface with split and audio_field, got {self.format}")
        if self.text_field and self.format not in ("huggingface", "shards"):
            raise ValueError(f"expected huggingface or shards with text_field, got {self.format}")


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stage of training.

    Attributes:
        name: Shown in logs.
        task: ``acoustic``: CTC over all units, and frame targets where character times are known.
            ``entities``: CRF loss, plus λ times the masked CTC loss (equation 3).
        train: Names of the training sources.
        dev: Names of the development sources that choose the best epoch; none: the last epoch is
            kept, so that scores on held-out data stay unbiased.
        epochs: Passes over the training sources.
        batch_size: Utterances of a batch, at most.
        batch_seconds: Audio of a batch, at most; 0: as much as there is.
        by_length: Make batches of utterances of similar length (ours); if not, they are drawn at
            random, as the release does.
        optimizer: ``adam`` (ours, betas 0.9 and 0.98) or ``adamw`` (the release, betas 0.9 and
            0.999).
        weight_decay: Of ``adamw``; biases and normalisation have none.
        learning_rate: Peak rate of the optimiser.
        text_learning_rate: Peak rate of a pretrained text encoder; 0: ``learning_rate``.
        acoustic_learning_rate: Peak rate of the acoustic encoder, which a pretrained one needs
            lower; 0: ``learning_rate``.
        crf_learning_rate: Peak rate of the CRF's transitions; 0: ``learning_rate``.
        warmup_steps: Steps to the peak, at most.
        warmup_share: The same as a share of the stage's steps, so that a short stage gets to its
            peak too.
        schedule: ``linear`` (ours: down to ``decay`` of the peak over the stage) or ``epochs`` (the
            release: each epoch loses ``epoch_decay`` of the one before).
        decay: Linear decay to this share of the peak over the stage.
        epoch_decay: See ``schedule``.
        freeze_acoustic: Do not train the acoustic encoder and the CTC head.
        freeze_pretrained: Of a pretrained acoustic encoder train only what brings it to the
            model's width, and the CTC head: until these know what to do, what they ask of the
            encoder would only spoil it (Kumar et al. 2022).
        only_audio_head: Of a model with ``model.fusion.gated`` train only the head that listens:
            the answers from text alone stay as they are.
        other_audio: Probability that an utterance is heard with another one's audio: what does not
            fit is not to be believed. With ``freeze_acoustic`` only.
        forbid_worse: Weight of how much less likely the gold entities are with audio than from text
            alone, where they are; of a model with ``model.fusion.gated``.
        acoustic_weight: For ``entities``: weight of the acoustic task's loss beside it.
        drop_audio: Probability of answering from text alone.
        drop_characters: Probability of replacing a character by the unknown one.
        exchange_names: Probability that an entity of a text without audio is exchanged for another
            of its type, see :mod:`cnerta.train.batches.mentions`.
        accumulate: Batches that make one optimiser step, in all processes together.
        shuffle: Of sources that are streamed: so many utterances are held to make batches of, in
            random order.
        shards: Of sources that are streamed: so many shards, manifests or stretches of rows are an
            epoch, and the next goes on with the next ones; 0: all of them.
        patience: Stop after so many epochs without a better development score; 0: never.
        clip_norm: Gradient norm bound.
        skip_nonfinite: How many steps whose loss is not finite may be left out; one more ends the
            run.
    """

    name: str
    task: Task
    train: list[str]
    dev: list[str]
    epochs: int
    batch_size: int = 16
    batch_seconds: Annotated[float, msgspec.Meta(ge=0)] = 120.0
    by_length: bool = True
    optimizer: OptimiserKind = "adam"
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    learning_rate: float = 1e-3
    text_learning_rate: float = 0.0
    acoustic_learning_rate: float = 0.0
    crf_learning_rate: float = 0.0
    warmup_steps: int = 100
    warmup_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    schedule: RateSchedule = "linear"
    decay: float = 0.05
    epoch_decay: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    freeze_acoustic: bool = False
    freeze_pretrained: bool = False
    only_audio_head: bool = False
    other_audio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    forbid_worse: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    acoustic_weight: float = 0.0
    drop_audio: float = 0.0
    drop_characters: float = 0.0
    exchange_names: float = 0.0
    accumulate: Annotated[int, msgspec.Meta(ge=1)] = 1
    shuffle: Annotated[int, msgspec.Meta(ge=1)] = 1000
    shards: Annotated[int, msgspec.Meta(ge=0)] = 0
    patience: int = 0
    clip_norm: float = 5.0
    skip_nonfinite: int = 0

    def __post_init__(self) -> None:
        """Refuse what would be silently ignored."""
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"expected weight_decay with adamw, got {self.optimizer}")
        if self.epoch_decay and self.schedule != "epochs":
            raise ValueError(f"expected epoch_decay with schedule epochs, got {self.schedule}")


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What happens to training audio.

    Attributes:
        speeds: Speed perturbation factors (Ko et al. 2015), drawn evenly.
        time_masks: SpecAugment (Park et al. 2019) masks in time.
        time_mask_windows: Longest of them, in 10 ms windows.
        time_mask_share: The same as a share of the batch's longest utterance.
        frequency_masks: Masks in frequency.
        frequency_mask_bins: Widest of them, in mel bins.
        vocal_tract: Frequencies are scaled by up to this share, either way (VTLP, Jaitly and
            Hinton 2013), as if the speaker's vocal tract were shorter or longer.
        timbre_db: Deviation of each part of a random smooth equaliser, as of other speakers and
            microphones.
        gain_db: Loudness is changed by up to this much, either way.
        room: How often a recording is put into a room, 0 to 1.
        room_seconds: The room's reverberation time, from and to.
        noise: How often noise is added.
        noise_db: The recording's level over that of the noise, from and to.
        telephone: How often it goes over a telephone.
    """

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    time_masks: int = 2
    time_mask_windows: int = 20
    time_mask_share: Share = 0.25
    frequency_masks: int = 2
    frequency_mask_bins: int = 10
    vocal_tract: Annotated[float, msgspec.Meta(ge=0, le=0.4)] = 0.0
    timbre_db: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    gain_db: float = 6.0
    room: Share = 0.0
    room_seconds: tuple[float, float] = (0.15, 0.7)
    noise: Share = 0.0
    noise_db: tuple[float, float] = (5.0, 30.0)
    telephone: Share = 0.0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A training run.

    Attributes:
        name: Of the recipe and the model; if it says none, the file's.
        source: What it reproduces.
        seed: Of everything random.
        select_on: The F1 that early stopping and the choice of the best model go by: ``nested``,
            ``flat`` or ``auto``, the one of the model's labels.
        max_readings: Pronunciations a character may have, with ``units = "pronunciations"``.
        min_tag_count: Nested labels: joint tags rarer than this in training are left out, and the
            deepest entities with them.
        model: The network.
        augmentation: Of training audio.
        data: Sources by name.
        stages: In order.
    """

    name: str
    source: str = ""
    seed: int = 0
    select_on: Literal["auto", "nested", "flat"] = "auto"
    max_readings: int = 3
    min_tag_count: int = 1
    model: ModelConfig = ModelConfig()
    augmentation: Augmentation = Augmentation()
    data: dict[str, Source]
    stages: list[Stage]


def recipe_files() -> dict[str, str]:
    """The recipes that come with the package, by name: file below the package's recipes.

    The rows of the paper's Table 3 have a folder of their own and plain names: ``bilstm-m3t`` is
    ``paper/bilstm-m3t.toml``.
    """
    folder = resources.files("cnerta.train") / "recipes"
    found = {}
    for below in ("", _PAPER):
        for file in (folder / below).iterdir():
            if file.name.endswith(".toml"):
                found[file.name.removesuffix(".toml")] = below + file.name
    return dict(sorted(found.items()))


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return list(recipe_files())


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: A name from :func:`recipe_names`, or a TOML file.
        overrides: ``key=value`` pairs; keys are dotted, list items are numbers, values are TOML
            (a bare word is taken as a string).

    Raises:
        ConfigError: No such recipe, or an unknown key or impossible value in it.
    """
    table = _read_table(name_or_path, Path(), ())
    table.setdefault("name", Path(name_or_path).stem)
    for override in overrides:
        _override(table, override)
    try:
        recipe = msgspec.convert(table, Recipe)
    except msgspec.ValidationError as error:
        raise ConfigError(f"in recipe {name_or_path}: {error}") from error
    for stage in recipe.stages:
        for source in (*stage.train, *stage.dev):
            if source not in recipe.data:
                raise ConfigError(
                    f"stage {stage.name!r}: expected a source of {sorted(recipe.data)}, "
                    f"got {source!r}"
                )
    return recipe


def _read_table(name_or_path: str, beside: Path, below: tuple[str, ...]) -> dict[str, Any]:
    """A recipe as TOML has it, merged with those that it extends.

    Args:
        name_or_path: A name or a TOML file.
        beside: Folder that a relative path starts from.
        below: The recipes that extend it, the outermost first.
    """
    if name_or_path.endswith(".toml"):
        path = beside / name_or_path
        if not path.is_file():
            raise ConfigError(f"expected a recipe file, got {path}, which is not a file")
        key, content = str(path.resolve()), path.read_text(encoding="utf-8")
        beside = path.parent
    elif (file := recipe_files().get(name_or_path.removeprefix(_PAPER))) is not None:
        bundled = resources.files("cnerta.train") / "recipes" / file
        key, content = file, bundled.read_text(encoding="utf-8")
    else:
        known = ", ".join(recipe_names())
        extends = f", which {below[-1]} extends" if below else ""
        raise ConfigError(
            f"expected a recipe file or one of {known}; got {name_or_path!r}{extends}"
        )
    chain = (*below, key)
    if key in below:
        raise ConfigError(f"expected recipes to end somewhere, got {' extends '.join(chain)}")
    try:
        table = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected TOML in {name_or_path}, got: {error}") from error
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str):
        raise ConfigError(f"in recipe {name_or_path}: expected one recipe to extend, got {parent}")
    inherited = _read_table(parent, beside, chain)
    for own in ("name", "source"):
        inherited.pop(own, None)
    return _merged(inherited, table)


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A table with another's values over its own, table by table."""
    both = dict(base)
    for key, value in change.items():
        old = both.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        both[key] = value
    return both


def _override(table: dict[str, Any], assignment: str) -> None:
    key, separator, text = assignment.partition("=")
    if not separator or not key:
        raise ConfigError(f"expected key=value, got {assignment!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    here: Any = table
    *path, last = key.split(".")
    for part in path:
        if isinstance(here, list):
            here = _item(here, part, assignment)
        elif isinstance(here, dict):
            here = here.setdefault(part, {})
        else:
            raise ConfigError(f"expected a table or list before {part!r} in {assignment!r}")
    if isinstance(here, list):
        _item(here, last, assignment)
        here[int(last)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise ConfigError(f"expected a table or list before {last!r} in {assignment!r}")


def _item(items: list[Any], index: str, assignment: str) -> Any:
    if not index.isdigit() or int(index) >= len(items):
        raise ConfigError(f"expected an index below {len(items)} in {assignment!r}, got {index!r}")
    return items[int(index)]
