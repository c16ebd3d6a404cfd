"""The bundle: a folder with a trained model, and all that is needed to use it without torch.

    acoustic.onnx   samples and stream state -> frames and stream state; of a full-context model
                    the samples of whole utterances -> frames
    tagger.onnx     characters and frames -> emissions and masked CTC log-probabilities
    readings.onnx   frames and acoustic units -> scores; only of a model with pronunciations
    lexicon.txt     word, count and tags a line; only of a model with a lexicon
    gazetteer.npz   fingerprints of words and their kinds; only of a model with a gazetteer
    bundle.json     labels, vocabulary, frame geometry, CRF, provenance, scores, and the hashes of
                    the other files

A bundle whose schema version or hashes do not fit is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from cnerta.models.config import AudioUse, Encoding, LabelKind
from cnerta.models.errors import BundleError, ConfigError
from cnerta.models.files import file_sha256, write_atomically
from cnerta.models.runtime.calibration import Calibration
from cnerta.models.runtime.decoding import CrfParameters
from cnerta.models.runtime.geometry import FrameGeometry
from cnerta.models.runtime.hub import HubContent, fetch, is_hub_name
from cnerta.models.runtime.labels import LabelScheme
from cnerta.models.runtime.listening import Listening
from cnerta.models.runtime.self_test import SELF_TEST_FILE
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.normalisation import KNOWN_NORMALISATIONS
from cnerta.models.text.word_files import (
    GAZETTEER_FILE,
    LEXICON_FILE,
    Words,
    load_words,
    save_words,
)

__all__ = [
    "ACOUSTIC_FILE",
    "AUDIO_FIT_BOUND",
    "BLANK_PENALTY",
    "MANIFEST_FILE",
    "READINGS_FILE",
    "SCHEMA_VERSION",
    "TAGGER_FILE",
    "Bundle",
    "bundle_files",
    "default_bundle_path",
    "find_bundle",
    "load_bundle",
    "write_bundle",
]

SCHEMA_VERSION = 3
# Before 3 every model was streaming and aligned, and none had a gazetteer.
_READABLE = (2, 3)
ACOUSTIC_FILE = "acoustic.onnx"
TAGGER_FILE = "tagger.onnx"
READINGS_FILE = "readings.onnx"
MANIFEST_FILE = "bundle.json"
_FILES = (ACOUSTIC_FILE, TAGGER_FILE, READINGS_FILE, LEXICON_FILE, GAZETTEER_FILE)
_HUB_CONTENT = HubContent(
    "bundle", (MANIFEST_FILE, *_FILES, SELF_TEST_FILE), MANIFEST_FILE, BundleError
)
_BUNDLES = Path(__file__).parents[1] / "bundles"
_BUILT_IN = {name: _BUNDLES / name for name in ("fast", "accurate")}

# Calibrated on the built-in model (docs/model-card.md); a bundle may bring its own.
AUDIO_FIT_BOUND = -4.0
BLANK_PENALTY = 6.0


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: everything but the graphs themselves.

    Attributes:
        path: The folder.
        name: What the model calls itself.
        scheme: Labels the CRF decodes.
        vocabulary: Characters and their acoustic units.
        geometry: Frame sizes.
        crf: CRF parameters.
        max_characters: Longest text the tagger takes at once.
        audio_fit_bound: Alignment scores below this mean that the audio is not of this text.
        blank_penalty: Of the alignment, see :func:`cnerta.models.runtime.alignment.align`.
        normalisation: Name of the text normalisation the model was trained with.
        provenance: How it was made: recipe, data, seeds, versions.
        scores: Figures measured at export, named ``<data>.<measure>``.
        has_readings: Whether it can tell how a character with several pronunciations was read.
        calibration: Of the confidences.
        audio_use: What it makes of audio.
        lexicon: Words or kinds of words that the tagger gets the places of, if it has an input
            for them.
        listening: How far answers follow audio that fits its text badly; None: as any other.
    """

    path: Path
    name: str
    scheme: LabelScheme
    vocabulary: Vocabulary
    geometry: FrameGeometry
    crf: CrfParameters
    max_characters: int
    audio_fit_bound: float
    blank_penalty: float
    normalisation: str
    provenance: dict[str, str]
    scores: dict[str, float]
    has_readings: bool = False
    calibration: Calibration = field(default_factory=Calibration)
    audio_use: AudioUse = "aligned"
    lexicon: Words | None = None
    listening: Listening | None = None

    @property
    def nested(self) -> bool:
        """Whether the model finds entities inside entities."""
        return self.scheme.kind == "nested"


class _Labels(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    kind: LabelKind
    tags: tuple[str, ...]
    encoding: Encoding = "bilou"
    well_formed: bool = True


class _Vocabulary(msgspec.Struct, forbid_unknown_fields=True):
    characters: str
    units: tuple[str, ...]
    readings: tuple[tuple[int, ...], ...]
    sha256: str


class _Crf(msgspec.Struct, forbid_unknown_fields=True):
    start: list[float]
    transitions: list[list[float]]
    end: list[float]


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    schema_version: int
    name: str
    labels: _Labels
    vocabulary: _Vocabulary
    geometry: FrameGeometry
    crf: _Crf
    max_characters: int
    audio_fit_bound: float
    blank_penalty: float
    normalisation: str
    provenance: dict[str, str]
    scores: dict[str, float]
    sha256: dict[str, str]
    calibration: Calibration = Calibration()
    # Its name and last value in the file are older than those in the code.
    hearing: Literal["aligned", "unaligned", "nothing"] = "aligned"
    listening: Listening | None = None


class _Version(msgspec.Struct):
    schema_version: int


def default_bundle_path() -> Path:
    """Folder of the bundle that is used where none is named: ``fast``."""
    return _BUILT_IN["fast"]


def find_bundle(bundle: Path | None) -> Path:
    """Folder of a bundle that a user named.

    Args:
        bundle: A folder, or ``fast`` or ``accurate`` for those that come with the package, unless
            there is a folder of that name; or ``hf:OWNER/NAME`` for one of the Hugging Face hub
            (:mod:`cnerta.models.runtime.hub`); None: the default.

    Raises:
        BundleError: One of the hub cannot be had.
    """
    if bundle is None:
        return default_bundle_path()
    if is_hub_name(str(bundle)):
        return fetch(str(bundle), _HUB_CONTENT)
    built_in = _BUILT_IN.get(str(bundle))
    if built_in is None or bundle.exists():
        return bundle
    return built_in


def bundle_files(path: Path) -> tuple[str, ...]:
    """The files of a bundle that are in its folder, without whatever else is there."""
    return tuple(
        name for name in (MANIFEST_FILE, *_FILES, SELF_TEST_FILE) if (path / name).is_file()
    )


def write_bundle(bundle: Bundle) -> None:
    """Write ``bundle.json`` beside the graphs, which must be in ``bundle.path`` already."""
    files = [ACOUSTIC_FILE, TAGGER_FILE]
    if bundle.has_readings:
        files.append(READINGS_FILE)
    if bundle.lexicon is not None:
        files.append(save_words(bundle.path, bundle.lexicon))
    manifest = _Manifest(
        schema_version=SCHEMA_VERSION,
        name=bundle.name,
        labels=_Labels(
            bundle.scheme.kind,
            bundle.scheme.tags,
            bundle.scheme.encoding,
            bundle.scheme.well_formed,
        ),
        vocabulary=_Vocabulary(
            "".join(bundle.vocabulary.characters),
            bundle.vocabulary.units,
            bundle.vocabulary.readings,
            bundle.vocabulary.sha256,
        ),
        geometry=bundle.geometry,
        crf=_Crf(
            bundle.crf.start.tolist(), bundle.crf.transitions.tolist(), bundle.crf.end.tolist()
        ),
        max_characters=bundle.max_characters,
        audio_fit_bound=bundle.audio_fit_bound,
        blank_penalty=bundle.blank_penalty,
        normalisation=bundle.normalisation,
        provenance=bundle.provenance,
        scores=bundle.scores,
        calibration=bundle.calibration,
        hearing="nothing" if bundle.audio_use == "none" else bundle.audio_use,
        listening=bundle.listening,
        sha256={name: file_sha256(bundle.path / name) for name in files},
    )
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=0)
    write_atomically(bundle.path / MANIFEST_FILE, encoded + b"\n")


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: The folder or a file is missing, the manifest is damaged or of another schema
            version, or a hash does not fit.
    """
    if not path.is_dir():
        raise BundleError(f"expected a bundle folder, got {path}, which is not a folder")
    for name in (MANIFEST_FILE, ACOUSTIC_FILE, TAGGER_FILE):
        if not (path / name).is_file():
            raise BundleError(f"expected {name} in the bundle {path}, got no such file")
    content = (path / MANIFEST_FILE).read_bytes()
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        if version not in _READABLE:
            known = " or ".join(map(str, _READABLE))
            raise BundleError(
                f"expected a bundle of schema version {known}, got {version} in {path}"
            )
        manifest = msgspec.json.decode(content, type=_Manifest)
        vocabulary = Vocabulary(
            tuple(manifest.vocabulary.characters),
            manifest.vocabulary.units,
            manifest.vocabulary.readings,
        )
        labels = manifest.labels
        scheme = LabelScheme(labels.kind, labels.tags, labels.encoding, labels.well_formed)
    except (msgspec.MsgspecError, ConfigError) as error:
        raise BundleError(f"expected a readable {MANIFEST_FILE} in {path}, got: {error}") from error
    if vocabulary.sha256 != manifest.vocabulary.sha256:
        raise BundleError(f"expected the vocabulary the model was trained with in {path}")
    for name in (ACOUSTIC_FILE, TAGGER_FILE):
        if name not in manifest.sha256:
            raise BundleError(f"expected the sha256 of {name} in {path / MANIFEST_FILE}, got none")
    for name, expected in manifest.sha256.items():
        if name not in _FILES:
            raise BundleError(
                f"expected files of a bundle ({', '.join(_FILES)}) in {path / MANIFEST_FILE}, got "
                f"{name!r}"
            )
        if not (path / name).is_file():
            raise BundleError(f"expected {name} in the bundle {path}, got no such file")
        found = file_sha256(path / name)
        if found != expected:
            raise BundleError(
                f"expected {name} with sha256 {expected[:12]}…, got {found[:12]}… in {path}: "
                "the file was truncated or changed"
            )
    if manifest.normalisation not in KNOWN_NORMALISATIONS:
        raise BundleError(
            f"expected text normalisation {' or '.join(sorted(KNOWN_NORMALISATIONS))} in {path}, "
            f"got {manifest.normalisation!r}"
        )
    lexicon = None
    for name in (LEXICON_FILE, GAZETTEER_FILE):
        if name in manifest.sha256:
            try:
                lexicon = load_words(path / name)
            except ConfigError as error:
                raise BundleError(str(error)) from error
    return Bundle(
        path=path,
        name=manifest.name,
        scheme=scheme,
        vocabulary=vocabulary,
        geometry=manifest.geometry,
        crf=CrfParameters(
            np.array(manifest.crf.start, np.float32),
            np.array(manifest.crf.transitions, np.float32),
            np.array(manifest.crf.end, np.float32),
        ),
        max_characters=manifest.max_characters,
        audio_fit_bound=manifest.audio_fit_bound,
        blank_penalty=manifest.blank_penalty,
        normalisation=manifest.normalisation,
        provenance=manifest.provenance,
        scores=manifest.scores,
        has_readings=READINGS_FILE in manifest.sha256,
        lexicon=lexicon,
        calibration=manifest.calibration,
        audio_use="none" if manifest.hearing == "nothing" else manifest.hearing,
        listening=manifest.listening,
    )
