"""TLS, with certificates that are made here and renewed while the server runs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from websockets.asyncio.client import ClientConnection, connect

from cnerta.models.errors import ConfigError
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.serving.tls import CertificateFiles
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import (
    SessionFinish,
    SessionReady,
    SessionStart,
    Transcript,
    UtteranceFinal,
)

from ..certificates import write_certificate


def name_of(socket: ClientConnection) -> str:
    """The name in the certificate that the server showed."""
    shown = socket.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    (attribute,) = x509.load_der_x509_certificate(shown).subject
    return str(attribute.value)


def dial(server: Server) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"wss://127.0.0.1:{server.port}/v1/stream"
    return connect(url, ssl=context, proxy=None, compression=None)


async def test_a_renewed_certificate_is_shown_and_nobody_is_cut_off(
    model: Any, tmp_path: Path
) -> None:
    files = CertificateFiles(*write_certificate(tmp_path, "first"))
    async with Server(model, ServerOptions(tls=files.context)) as server:
        await server.start()
        async with dial(server) as early:
            assert name_of(early) == "first"
            await early.send(encode(SessionStart()), text=True)
            assert isinstance(decode_server(await early.recv()), SessionReady)
            assert not files.reload_if_changed()
            write_certificate(tmp_path, "second")
            assert files.reload_if_changed()
            async with dial(server) as late:
                assert name_of(late) == "second"
            await early.send(encode(SessionFinish()), text=True)
            async with asyncio.timeout(60):
                async for _ in early:
                    pass
            assert early.close_code == 1000


async def test_what_comes_at_once_in_many_pieces_is_taken_whole(model: Any, tmp_path: Path) -> None:
    files = CertificateFiles(*write_certificate(tmp_path, "ours"))
    async with Server(model, ServerOptions(tls=files.context)) as server:
        await server.start()
        async with dial(server) as stream:
            await stream.send(encode(SessionStart()), text=True)
            # Each frame is a record of its own; the server finds many of them at once.
            for n in range(200):
                await stream.send(bytes(320))
                text = Transcript(utterance=f"u{n}", revision=1, final=True, text="他在北京")
                await stream.send(encode(text), text=True)
            await stream.send(encode(SessionFinish()), text=True)
            async with asyncio.timeout(60):
                messages = [decode_server(message) async for message in stream]
            answered = [m.utterance for m in messages if isinstance(m, UtteranceFinal)]
            assert answered == [f"u{n}" for n in range(200)]
            assert stream.close_code == 1000


async def test_a_pair_that_does_not_fit_changes_nothing(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = write_certificate(tmp_path, "first")
    files = CertificateFiles(certificate, key)
    old_key = key.read_bytes()
    write_certificate(tmp_path, "second")
    key.write_bytes(old_key)
    assert not files.reload_if_changed()
    assert "the certificate stays as it was" in caplog.text
    assert not files.reload_if_changed(), "it is said once"
    async with Server(model, ServerOptions(tls=files.context)) as server:
        await server.start()
        async with dial(server) as stream:
            assert name_of(stream) == "first"


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "cert.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"expected a certificate and its key .*cert.pem, got: "):
        CertificateFiles(path)


def test_a_key_with_a_password_asks_nobody(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "first")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="without a password"):
        CertificateFiles(certificate, key)
