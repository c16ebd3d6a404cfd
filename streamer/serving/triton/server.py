"""A connection to NVIDIA Triton over gRPC.

The protocol is KServe's version 2 with Triton's extensions for sequences and configurations
(``grpc_service.proto``); its client is the package ``tritonclient``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import BundleError, ConfigError, InferenceError
from cnerta.models.runtime.bundle import Bundle
from cnerta.models.runtime.model_repository import (
    SHA256_PARAMETER,
    GraphKind,
    graph_sha256,
    model_name,
)

__all__ = ["SequenceLostError", "SequencePlace", "TritonAddress", "TritonServer"]

Arrays = dict[str, npt.NDArray[Any]]

TIMEOUT_S: Final = 10.0
"""Of a call; a batch may take longer than that (:class:`Batcher`)."""
_NAMES: Final = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}
_CHANNEL: Final = [
    # A batch of long windows is some megabytes; gRPC's own bound is four.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is noticed soon: gRPC's own bound is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
_LOST_SEQUENCE: Final = "START flag"
"""In what Triton says of a sequence that it does not know (any more)."""


@dataclass(frozen=True, slots=True)
class TritonAddress:
    """Where Triton answers gRPC.

    Attributes:
        host: A name or address.
        port: Usually 8001.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> TritonAddress:
        """Take ``triton://HOST:PORT`` apart.

        Raises:
            ConfigError: It is something else.
        """
        found = re.fullmatch(r"triton://(\[[0-9a-fA-F:]+\]|[^\s/:@\[\]]+):(\d{1,5})/?", text)
        if found is None or not 0 < int(found[2]) < 2**16:
            raise ConfigError(f"expected triton://HOST:PORT, got {text!r}")
        return cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SequencePlace:
    """Which request of which sequence.

    Attributes:
        number: Of the sequence, not 0.
        is_first: It begins the sequence.
        is_last: It ends it.
    """

    number: int
    is_first: bool = False
    is_last: bool = False


class SequenceLostError(InferenceError):
    """Triton has forgotten a sequence: it was restarted, or too long without a request."""


class TritonServer:
    """Asks models of one Triton; may be used by several threads.

    Attributes:
        address: Where it is.
    """

    def __init__(self, address: TritonAddress, *, timeout_s: float = TIMEOUT_S) -> None:
        """Connect when the first call comes.

        Args:
            address: Where it is.
            timeout_s: How long a call may take.

        Raises:
            InferenceError: The package tritonclient is missing.
        """
        try:
            import tritonclient.grpc as package
            from tritonclient.utils import InferenceServerException
        except ImportError as error:
            raise InferenceError(
                "expected the package tritonclient, got no such package: install "
                "cnerta-stream[triton]"
            ) from error
        self.address = address
        self._package: Any = package
        self._error: Any = InferenceServerException
        self._timeout_s = timeout_s
        self._client: Any = package.InferenceServerClient(str(address), channel_args=_CHANNEL)

    def check_model(self, bundle: Bundle, kind: GraphKind) -> str:
        """See that a graph of a bundle is served there.

        Returns:
            The model's name.

        Raises:
            InferenceError: Triton cannot be reached, or has no such model.
            BundleError: The model is of another bundle.
        """
        name = model_name(bundle, kind)
        try:
            is_ready = self._client.is_model_ready(name, client_timeout=self._timeout_s)
            if not is_ready:
                raise InferenceError(
                    f"expected Triton at {self.address} to have the model {name} ready, got none: "
                    "cnerta-export --triton writes it"
                )
            config = self._client.get_model_config(name, client_timeout=self._timeout_s).config
        except self._error as error:
            raise self._failure(name, error) from error
        found = config.parameters[SHA256_PARAMETER].string_value
        expected = graph_sha256(bundle, kind)
        if found != expected:
            raise BundleError(
                f"expected the model {name} of Triton at {self.address} to be made of the bundle "
                f"{bundle.path} (sha256 {expected[:12]}…), got another ({found[:12] or 'none'}…): "
                "cnerta-export --triton writes it anew"
            )
        return name

    def infer(
        self,
        model: str,
        inputs: Mapping[str, npt.NDArray[Any]],
        outputs: Sequence[str],
        place: SequencePlace | None = None,
    ) -> Future[Arrays]:
        """Ask a model.

        Args:
            model: Its name.
            inputs: By name, the batch first.
            outputs: What is wanted.
            place: In a sequence, for a model of sequences.

        Returns:
            The outputs by name. Fails with :class:`InferenceError` where Triton cannot be reached,
            does not answer in time or refuses, and with :class:`SequenceLostError`.
        """
        asked = []
        for name, value in inputs.items():
            tensor = self._package.InferInput(name, list(value.shape), _NAMES[value.dtype])
            tensor.set_data_from_numpy(value)
            asked.append(tensor)
        answer: Future[Arrays] = Future()

        def take(result: Any, error: Any) -> None:
            if error is not None:
                answer.set_exception(self._failure(model, error))
                return
            try:
                answer.set_result({name: _array(result, model, name) for name in outputs})
            except Exception as failure:
                answer.set_exception(failure)

        place = place or SequencePlace(0)
        try:
            self._client.async_infer(
                model,
                asked,
                take,
                outputs=[self._package.InferRequestedOutput(name) for name in outputs],
                sequence_id=place.number,
                sequence_start=place.is_first,
                sequence_end=place.is_last,
                client_timeout=self._timeout_s,
            )
        except self._error as error:
            raise self._failure(model, error) from error
        return answer

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def _failure(self, model: str, error: Any) -> InferenceError:
        message = " ".join(str(error.message()).split())
        kind = SequenceLostError if _LOST_SEQUENCE in message else InferenceError
        status = str(error.status() or "").removeprefix("StatusCode.")
        return kind(
            f"expected Triton at {self.address} to run {model}, got {status or 'a failure'}: "
            f"{message}"
        )


def _array(result: Any, model: str, name: str) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] | None = result.as_numpy(name)
    if found is None:
        raise InferenceError(f"expected {name} from Triton's model {model}, got nothing")
    return found
