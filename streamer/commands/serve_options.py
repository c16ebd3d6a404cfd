"""The options of ``cnerta-serve`` that say who may connect, and what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cnerta.models.errors import ConfigError
from cnerta.models.runtime.onnx_sessions import Device
from cnerta.streamer.access.admission import AccessOptions
from cnerta.streamer.access.jwt_tokens import JwtVerifier
from cnerta.streamer.access.peers import Network, parse_network
from cnerta.streamer.access.token_file import read_tokens
from cnerta.streamer.access.token_signer import TokenSigner
from cnerta.streamer.access.tokens import Tokens
from cnerta.streamer.client.connection import TOKEN_VARIABLE
from cnerta.streamer.serving.tls import CertificateFiles
from cnerta.streamer.serving.triton.server import TritonAddress
from cnerta.streamer.wire.addresses import is_loopback

__all__ = [
    "AllowedHostOption",
    "DeviceOption",
    "EngineOption",
    "InsecureOption",
    "JwtAudienceOption",
    "JwtKey",
    "JwtPublicKeyOption",
    "JwtSecretFileOption",
    "MaxBatchOption",
    "MaxFinalWaitOption",
    "MaxSessionsPerAddressOption",
    "MaxWaitingPerAddressOption",
    "MaxYoungSessionsOption",
    "MetricsAddressOption",
    "OriginOption",
    "ResidentStreamsOption",
    "Secrets",
    "SessionTokenSecretFileOption",
    "TlsCertOption",
    "TlsKeyOption",
    "TokenFileOption",
    "TrustedProxyOption",
    "access_options",
    "parse_engine",
    "parse_metrics_address",
]

DeviceOption = Annotated[
    Device,
    typer.Option(
        "--device",
        "--provider",
        help="What runs the graphs. auto takes a GPU by CUDA if there is one; tensorrt is for "
        "those who ask for it. The log says what was taken, and why.",
    ),
]
ResidentStreamsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Streams whose caches stay on the device between two chunks; 0: none. [default: "
        "--max-sessions with CUDA, none elsewhere]",
    ),
]
MaxBatchOption = Annotated[
    int,
    typer.Option(
        min=1, max=512, help="Most sessions that one batch serves; on a GPU more are quicker."
    ),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        metavar="triton://HOST:PORT",
        help="Have the bundle's graphs run by NVIDIA Triton, whose gRPC answers there, on models "
        "that cnerta-export --triton has written. Needs the extra triton.",
    ),
]
OriginOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="Origin that web pages may come from, beside this server's own; * for any. "
        "Repeatable.",
    ),
]
AllowedHostOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Name that clients call this server by, without a port. On the loopback interface "
        "only this machine's names will do otherwise, elsewhere any name. Repeatable.",
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File of tokens; who opens a session needs one. One a line, or, in FILE.toml, each "
        f"with a name and limits; read anew on SIGHUP. {TOKEN_VARIABLE} in the environment is one, "
        "too.",
    ),
]
InsecureOption = Annotated[
    bool,
    typer.Option("--insecure/--no-insecure", help="Listen beyond this machine without a token."),
]
JwtSecretFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Secret that signs JSON Web Tokens (HS256), which are accepted as tokens, too. Needs "
        "the extra jwt.",
    ),
]
JwtPublicKeyOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The same with a public key (PEM: RSA, EC or Ed25519)."),
]
JwtAudienceOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What these tokens have to be for (aud).")
]
SessionTokenSecretFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Secret that signs the tokens of /v1/sessions, so that every server with the same "
        "secret takes them. One a line: the first signs. Read anew on SIGHUP.",
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Certificate with its chain (PEM): speak TLS. Read anew when it changes and on "
        "SIGHUP, without ending connections.",
    ),
]
TlsKeyOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Its key; not needed where the certificate's file has it."),
]
MetricsAddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Answer /metrics there, and no longer on the public address. Without TLS and tokens: "
        "for a network of the operators' own.",
    ),
]
MaxSessionsPerAddressOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Most connections at once from one address (IPv6: from one /64); from this machine "
        "any number.",
    ),
]
MaxWaitingPerAddressOption = Annotated[
    int, typer.Option(min=1, help="Most of these that have not started a session.")
]
MaxFinalWaitOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="Bound of the time to a final answer, for 95 % of them: from half of it on nobody "
        "else is taken. 0: only --max-sessions counts.",
    ),
]
MaxYoungSessionsOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Most connections taken within 1 s, or a quarter of those that are there; fewer the "
        "longer final answers take.",
    ),
]
TrustedProxyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NETWORK",
        help="Address or network of a proxy whose X-Forwarded-For is believed. Repeatable.",
    ),
]


def access_options(
    *,
    allowed_hosts: Sequence[str] | None,
    trusted_proxies: Sequence[str] | None,
    max_sessions_per_address: int,
    max_waiting_per_address: int,
    max_final_wait_ms: int,
    max_young_sessions: int,
) -> AccessOptions:
    """What the options come to.

    Raises:
        typer.BadParameter: A proxy is no address.
    """
    return AccessOptions(
        max_sessions_per_address=max_sessions_per_address,
        max_waiting_per_address=max_waiting_per_address,
        max_final_wait_ms=max_final_wait_ms or None,
        max_young_sessions=max_young_sessions,
        trusted_proxies=tuple(map(_network, trusted_proxies or ())),
        allowed_hosts=tuple(host.lower() for host in allowed_hosts or ()),
    )


def _network(text: str) -> Network:
    try:
        return parse_network(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--trusted-proxy") from error


def parse_engine(text: str | None) -> TritonAddress | None:
    """What runs the graphs; None: this process.

    Raises:
        typer.BadParameter: It is no address.
    """
    if text is None:
        return None
    try:
        return TritonAddress.parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--engine") from error


def parse_metrics_address(text: str | None) -> tuple[str, int] | None:
    """Take ``HOST:PORT`` apart.

    Raises:
        typer.BadParameter: It is none.
    """
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise typer.BadParameter(
            f"expected --metrics-address HOST:PORT, such as 127.0.0.1:9100, got {text!r}"
        )
    return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class JwtKey:
    """Where the key lies with which JSON Web Tokens are checked.

    Attributes:
        path: Of the file.
        is_secret: Whether it is a shared secret or a public key.
        audience: What tokens have to be for.
    """

    path: Path
    is_secret: bool
    audience: str | None

    @classmethod
    def of(cls, secret: Path | None, public: Path | None, audience: str | None) -> JwtKey | None:
        """What the options come to.

        Raises:
            typer.BadParameter: Both are given, or an audience without either.
        """
        if secret is not None and public is not None:
            raise typer.BadParameter("expected --jwt-secret-file or --jwt-public-key, got both")
        path = secret or public
        if path is None:
            if audience is not None:
                raise typer.BadParameter("expected a key of tokens beside --jwt-audience, got none")
            return None
        return cls(path, secret is not None, audience)

    def read(self) -> JwtVerifier:
        """The key as it is now.

        Raises:
            ConfigError: It cannot be used.
        """
        return JwtVerifier.read(self.path, is_secret=self.is_secret, audience=self.audience)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What lies in files and may change while the server runs.

    Attributes:
        token_file: Of tokens.
        jwt: Key of those that somebody else signs.
        session_token_secret: What signs tokens for one session.
        certificate: For TLS.
    """

    token_file: Path | None
    jwt: JwtKey | None
    session_token_secret: Path | None
    certificate: CertificateFiles | None

    @classmethod
    def of(
        cls,
        host: str,
        token_file: Path | None,
        jwt: JwtKey | None,
        session_token_secret: Path | None,
        cert: Path | None,
        key: Path | None,
        *,
        insecure: bool,
    ) -> Secrets:
        """Read them, once.

        Raises:
            typer.BadParameter: They cannot be used, or there is no token where one is needed.
        """
        if key is not None and cert is None:
            raise typer.BadParameter("expected --tls-cert beside --tls-key, got none")
        try:
            certificate = None if cert is None else CertificateFiles(cert, key)
            secrets = cls(token_file, jwt, session_token_secret, certificate)
            has_token = bool(secrets.tokens())
            secrets.token_signer()
        except ConfigError as error:
            raise typer.BadParameter(str(error)) from error
        if not (has_token or insecure or is_loopback(host)):
            raise typer.BadParameter(
                f"expected --token-file, {TOKEN_VARIABLE} or --insecure to listen on {host}, where "
                "others than this machine reach it, got none"
            )
        return secrets

    def tokens(self) -> Tokens:
        """The tokens of the files, as they are now, and of the environment.

        Raises:
            ConfigError: A file cannot be used.
        """
        own = os.environ.get(TOKEN_VARIABLE)
        listed = () if self.token_file is None else read_tokens(self.token_file)
        return Tokens(
            (*listed, own) if own else listed, None if self.jwt is None else self.jwt.read()
        )

    def token_signer(self) -> TokenSigner | None:
        """What signs tokens for one session, as it is now; None: nothing.

        Raises:
            ConfigError: The file cannot be used.
        """
        path = self.session_token_secret
        return None if path is None else TokenSigner.read(path)
