"""A graph that is ready to run, and goes on where its runtime fails.

A call that fails on a GPU is made once more on the CPU. If that works, it was the GPU's fault, and
after a few such calls in a row the graph stays on the CPU. If it fails there too, it was the
call's, and its error is raised.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

__all__ = ["GraphSession"]

logger = logging.getLogger(__name__)

_MOST_FAULTS: Final = 3
_CPU: Final = "CPUExecutionProvider"


class GraphSession:
    """One graph; may be used by several threads.

    Attributes:
        faults: Calls that only the CPU could do, so far.
    """

    def __init__(self, name: str, open_on: Callable[[bool], Any], *, use_gpu: bool) -> None:
        """Open it.

        Args:
            name: Of the graph, for the log.
            open_on: Opens a session of the runtime, on a GPU or on the CPU alone.
            use_gpu: Where to begin.
        """
        self.faults = 0
        self._name = name
        self._open_on = open_on
        self._use_gpu = use_gpu
        self._session = open_on(use_gpu)
        self._on_cpu: Any = None
        self._faults_in_a_row = 0
        self._lock = threading.Lock()

    def get_providers(self) -> list[str]:
        """Where it runs: names of the runtime's providers, the first choice first."""
        found: list[str] = self._session.get_providers()
        return found

    def get_outputs(self) -> Any:
        """See the runtime."""
        return self._session.get_outputs()

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any]) -> Any:
        """Run it.

        Args:
            names: Outputs wanted; None: all.
            feed: Inputs by name.
        """
        session = self._session
        if not self._use_gpu or session.get_providers()[0] == _CPU:
            return session.run(names, feed)
        try:
            outputs = session.run(names, feed)
        except Exception as error:
            # The text of the runtime's errors names nodes and sizes, nothing of anybody's input.
            return self._run_on_cpu(names, feed, error)
        self._faults_in_a_row = 0
        return outputs

    def reopen(self) -> None:
        """Open it anew, because the session in use hangs; what hangs in it is left behind."""
        session = self._open_on(self._use_gpu)
        with self._lock:
            self._session, self._on_cpu = session, None

    def _run_on_cpu(
        self, names: Sequence[str] | None, feed: Mapping[str, Any], error: Exception
    ) -> Any:
        with self._lock:
            if self._on_cpu is None:
                self._on_cpu = self._open_on(False)
            session = self._on_cpu
        outputs = session.run(names, feed)
        with self._lock:
            self.faults += 1
            self._faults_in_a_row += 1
            logger.error("%s failed on the GPU and was run on the CPU: %s", self._name, error)
            if self._use_gpu and self._faults_in_a_row >= _MOST_FAULTS:
                logger.error("%s stays on the CPU: the GPU is lost", self._name)
                self._use_gpu, self._session, self._on_cpu = False, session, None
        return outputs
