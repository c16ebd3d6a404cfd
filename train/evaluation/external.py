"""Other libraries' pipelines, scored like ours: the spaCy and Stanza rows of the paper's Table 3.

Their Chinese models are trained on OntoNotes, whose types are not CNERTA's. What becomes of each:

* ``PERSON`` → ``PER``.
* ``ORG`` → ``ORG``.
* ``GPE`` and ``LOC`` → ``LOC``: CNERTA does not part places with a government from others.
* ``FAC`` → ``LOC``: bridges, airports, roads, squares and parks are places in CNERTA. Hospitals,
  schools and stadiums that act are organisations in both.
* ``NORP`` → nothing: peoples, religions and political creeds are not annotated in CNERTA; a party
  as an organisation is ``ORG`` in OntoNotes too.
* ``PRODUCT``, ``EVENT``, ``WORK_OF_ART``, ``LAW``, ``LANGUAGE`` and all dates, times and numbers →
  nothing: CNERTA has no such entities.

``PER``, ``LOC`` and ``ORG`` of pipelines that were trained on other data stay as they are. Entities
of these pipelines never overlap, so there are flat scores only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cnerta.models.errors import CnertaError, ConfigError
from cnerta.models.runtime.labels import Span

__all__ = ["TYPES", "ExternalError", "ExternalPipeline", "load_external"]

TYPES = {
    "PERSON": "PER",
    "PER": "PER",
    "ORG": "ORG",
    "GPE": "LOC",
    "LOC": "LOC",
    "FAC": "LOC",
}
"""Our type of each of theirs; what is not listed is left out."""


class ExternalError(CnertaError):
    """A library or its model is not installed, or cannot find entities."""


@dataclass(frozen=True, slots=True)
class ExternalPipeline:
    """A pipeline and what it is called.

    Attributes:
        name: As it was asked for, with versions.
        process: The pipeline: a text in, a document out that has ``ents``, each with a type and
            the offsets of its characters.
    """

    name: str
    process: Callable[[str], Any]

    def __call__(self, text: str) -> list[Span]:
        """The entities of a text, in our types and in text order.

        Raises:
            ExternalError: The pipeline fails on the text.
        """
        try:
            document = self.process(text)
        except Exception as error:
            # Whatever these libraries raise, it is about this text and this pipeline.
            raise ExternalError(f"{self.name} on {text[:20]!r}: {error!r}") from error
        return _spans(document.ents)


def load_external(name: str) -> ExternalPipeline:
    """Load a pipeline that is installed; nothing is fetched.

    Args:
        name: ``spacy:MODEL``, a package such as ``zh_core_web_trf`` or a folder; or
            ``stanza:LANGUAGE``, such as ``zh``.

    Raises:
        ConfigError: The name is not of this form.
        ExternalError: The library or the model is not installed, or has no entity recogniser.
    """
    library, separator, model = name.partition(":")
    if not separator or not model or library not in _LOADERS:
        raise ConfigError(f"expected spacy:MODEL or stanza:LANGUAGE, got {name!r}")
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise _missing(library, error) from error
    return _LOADERS[library](module, model)


def _missing(library: str, error: ImportError) -> ExternalError:
    """What to install: the library, or what of its own is not there."""
    absent = (error.name or library).partition(".")[0]
    if absent == library and f"{library}." in (error.name or ""):
        return ExternalError(f"expected a whole installation of {library}, got: {error}")
    needed = "" if absent == library else f", which {library} needs"
    return ExternalError(
        f"expected the package {absent}{needed}, got none: pip install {absent}, best in a virtual "
        "environment of its own"
    )


def _load_spacy(spacy: Any, model: str) -> ExternalPipeline:
    try:
        pipeline = spacy.load(model)
    except ModuleNotFoundError as error:
        # A model's tokeniser may want a package: spacy-pkuseg, jieba.
        raise _missing("spacy", error) from error
    except (OSError, ImportError, ValueError) as error:
        raise ExternalError(
            f"expected the spaCy model {model}, got: {error} (python -m spacy download {model})"
        ) from error
    if not {"ner", "entity_ruler"} & set(pipeline.pipe_names):
        raise ExternalError(
            f"expected an entity recogniser in {model}, got only {pipeline.pipe_names}"
        )
    version = f"{model} {pipeline.meta.get('version', '')}".strip()
    return ExternalPipeline(f"spacy {spacy.__version__}, {version}", pipeline)


def _load_stanza(stanza: Any, language: str) -> ExternalPipeline:
    try:
        pipeline = stanza.Pipeline(
            language, processors="tokenize,ner", download_method=None, verbose=False
        )
    except ModuleNotFoundError as error:
        raise _missing("stanza", error) from error
    except Exception as error:
        # Its errors have no common root, and a missing model is any of several of them.
        raise ExternalError(
            f"expected the Stanza models of {language!r}, got: {error} "
            f"(python -c \"import stanza; stanza.download('{language}')\")"
        ) from error
    return ExternalPipeline(f"stanza {stanza.__version__}, {language}", pipeline)


_LOADERS: dict[str, Callable[[Any, str], ExternalPipeline]] = {
    "spacy": _load_spacy,
    "stanza": _load_stanza,
}


def _spans(entities: Iterable[Any]) -> list[Span]:
    found = set()
    for entity in entities:
        # spaCy's ``label_`` is Stanza's ``type``.
        label = TYPES.get(getattr(entity, "label_", None) or entity.type)
        if label is not None:
            found.add(Span(entity.start_char, entity.end_char, label))
    return sorted(found)
