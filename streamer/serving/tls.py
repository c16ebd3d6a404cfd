"""TLS with a certificate that can be renewed while the server runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from cnerta.models.errors import ConfigError

__all__ = ["CertificateFiles"]

logger = logging.getLogger(__name__)


class CertificateFiles:
    """A certificate and its key, read anew when they change.

    Attributes:
        context: What the listener is given. Connections that come after a renewal get the new
            certificate; those that are open keep theirs.
    """

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        """Read them.

        Args:
            certificate: PEM, with the chain.
            key: PEM; None: it is in the certificate's file.

        Raises:
            ConfigError: They cannot be read or do not belong together.
        """
        self._certificate = certificate
        self._key = key
        self.context = _new_context()
        self._seen = self._stamps()
        self._load()

    def reload(self) -> bool:
        """Read them anew; what cannot be used is logged and the old ones stay.

        Returns:
            Whether they are in use now.
        """
        self._seen = self._stamps()
        try:
            self._load()
        except ConfigError as error:
            logger.error("the certificate stays as it was: %s", error)
            return False
        logger.info("the certificate was read anew from %s", self._certificate)
        return True

    def reload_if_changed(self) -> bool:
        """Read them anew if a file has changed. Returns whether new ones are in use now."""
        return self._stamps() != self._seen and self.reload()

    def _load(self) -> None:
        # First elsewhere: a pair that does not fit would leave half of it in the one in use.
        for context in (_new_context(), self.context):
            try:
                context.load_cert_chain(self._certificate, self._key, _no_password)
            except (OSError, ssl.SSLError) as error:
                files = f"{self._certificate}" + (f" and {self._key}" if self._key else "")
                reason = (error.strerror or str(error)) if error.args else type(error).__name__
                raise ConfigError(
                    f"expected a certificate and its key (PEM, without a password) in {files}, "
                    f"got: {reason}"
                ) from error

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._certificate, self._key) if path is not None)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    # Without this, OpenSSL would ask on the terminal.
    return ""


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
