"""Watches whether the engine still works: golden answers again and again, and its GPU.

A model whose memory was harmed, or a machine that works wrongly, answers without an error: with no
entities, as a rule. So the self-test of the bundle is repeated while the server runs. A test that
fails is repeated at once; if it fails again, nothing that the engine says is to be believed until
one passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from cnerta.models.errors import BundleError
from cnerta.streamer.serving.engine import describe_failure

__all__ = ["EngineWatch", "WatchObserver"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 10.0


class WatchObserver(Protocol):
    """Is told of what is seen; for metrics."""

    def on_self_test(self, *, passed: bool) -> None:
        """The engine was tested."""
        ...


class EngineWatch:
    """Tests the engine from time to time.

    Attributes:
        is_fit: Whether it passed the last test.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        on_unfit: Callable[[], None],
        observer: WatchObserver | None = None,
        *,
        every_s: float = 300.0,
        retry_s: float = _RETRY_S,
    ) -> None:
        """Begin; nothing runs yet.

        Args:
            check: Tests the engine; raises where it fails.
            on_unfit: Is called when the engine has failed.
            observer: Is told of every test.
            every_s: Time between tests that pass.
            retry_s: Between a test that failed and the next.
        """
        self.is_fit = True
        self._check = check
        self._on_unfit = on_unfit
        self._observer = observer
        self._every_s = every_s
        self._retry_s = retry_s

    async def run(self) -> None:
        """Test until cancelled."""
        while True:
            await asyncio.sleep(self._every_s if self.is_fit else self._retry_s)
            await self.test()

    async def test(self) -> None:
        """Test now, twice if need be."""
        passed = await self._passes() or (self.is_fit and await self._passes())
        if self._observer is not None:
            self._observer.on_self_test(passed=passed)
        was_fit, self.is_fit = self.is_fit, passed
        if was_fit and not passed:
            logger.error("the engine is unfit: its sessions end, and none are taken")
            self._on_unfit()
        elif passed and not was_fit:
            logger.warning("the engine passes its self-test again")

    async def _passes(self) -> bool:
        try:
            await self._check()
        except BundleError as error:  # its text is ours
            logger.error("the self-test failed: %s", error)
            return False
        except Exception as error:
            logger.error("the self-test failed: %s", describe_failure(error))
            return False
        return True
