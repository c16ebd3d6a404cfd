"""The project's error tree. Every error a user can cause or meet is one of these.

CnertaError
├── BundleError       a model bundle is missing, damaged or of another schema
├── CheckpointError   a training checkpoint is missing, damaged or of another recipe
├── ConfigError       a recipe or a setting has an unknown key or an impossible value
├── DataError         a data file or recording does not have the promised form
├── InferenceError    the ONNX runtime is not installed or refused the graphs
└── ParityError       an exported graph does not compute what the torch model computes

Packages add their own below it where they are raised: ``VoiceError``
(``train/synthesis/voices.py``), ``ExternalError`` (``train/evaluation/external.py``),
``ProtocolError`` (``streamer/wire/errors.py``), ``AddressError`` (``streamer/serving/server.py``)
and those of the clients (``streamer/errors.py``).

Messages say what was expected and what came.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "CheckpointError",
    "CnertaError",
    "ConfigError",
    "DataError",
    "InferenceError",
    "ParityError",
]


class CnertaError(Exception):
    """Root of the project's errors."""


class BundleError(CnertaError):
    """A model bundle is missing, damaged or of another schema."""


class CheckpointError(CnertaError):
    """A training checkpoint is missing, damaged or of another recipe."""


class ConfigError(CnertaError):
    """A recipe or a setting has an unknown key or an impossible value."""


class DataError(CnertaError):
    """A data file or recording does not have the promised form."""


class InferenceError(CnertaError):
    """The ONNX runtime is not installed or refused the graphs."""


class ParityError(CnertaError):
    """An exported graph does not compute what the torch model computes."""
