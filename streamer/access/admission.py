"""Whether one more connection is taken, and if not, why and when to come back.

Taken are those who may (origin, token, quota), as long as there are places and the server keeps its
promise to those who are there: finals within the bound. What sessions cost is not seen before they
stream. So only so many may be that young, and fewer the longer finals wait: when all clients come
back at once, after a restart, they are let in as fast as they can be served. Whoever is refused is
told when to come back, later the more there are, so that knocking costs those inside nothing.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from websockets.http11 import Request

from cnerta.streamer.access.callers import Caller
from cnerta.streamer.access.hosts import Hosts
from cnerta.streamer.access.ledger import Ledger, OwnLedger
from cnerta.streamer.access.load import LoadWatch
from cnerta.streamer.access.origins import is_allowed
from cnerta.streamer.access.peers import Network, address_group, is_in, peer_address
from cnerta.streamer.access.session_tokens import SessionToken, SessionTokens
from cnerta.streamer.access.token_signer import TokenSigner
from cnerta.streamer.access.tokens import Tokens, sent_tokens
from cnerta.streamer.wire.errors import ErrorName, ProtocolError

__all__ = ["AccessOptions", "Admission", "NotReady", "Place", "Refusal", "Unfit"]

Unfit = Literal["unfit", "memory"]
NotReady = Literal["unfit", "memory", "stopping", "full", "overloaded", "filling"]
_OWN: Final = frozenset({"127.0.0.1", address_group("::1")})
"""Where an undeclared proxy of this machine comes from, or the operator."""
_YOUNG_S: Final = 1.0
_MOST_SILENT: Final = 4
_GROWTH: Final = 0.25
"""By so much of those who are there their number may grow while they are young."""
_HEADROOM: Final = 0.5
"""From this share of the bound on nobody is taken: the rest is for those who were just taken."""
_KNOCKS_S: Final = 3.0
_KNOCKS_PER_S: Final = 30
"""So many who come back are turned away again at most, in the long run."""
_MOST_KNOCKS: Final = 10_000
_FULL_MS: Final = 5_000
_OVERLOADED_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """Who may connect, and how many.

    Attributes:
        max_sessions_per_address: Most connections at once from one address (IPv6: from one /64);
            from this machine's own any number.
        max_waiting_per_address: Most of these that have not started a session.
        max_final_wait_ms: Bound of the time to a final answer (95 %): beyond half of it nobody else
            is taken; None: only places count.
        max_young_sessions: Most connections taken within 1 s while finals wait for next to nothing;
            or a quarter of those that are there, if that is more.
        trusted_proxies: Whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed.
        allowed_hosts: Names of the server, without a port.
        session_token_ttl_s: How long a short-lived token may be used.
    """

    max_sessions_per_address: int = 256
    max_waiting_per_address: int = 64
    max_final_wait_ms: int | None = 500
    max_young_sessions: int = 32
    trusted_proxies: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    session_token_ttl_s: float = 60.0


@dataclass(eq=False, slots=True)
class Place:
    """What a connection that was taken holds.

    Attributes:
        caller: Whose session it is.
        address: Where it comes from.
        token: For one session, that it was taken for; it is spent, by it or before.
        comes_back: Whether it was taken for the session only that its token has opened before.
        has_started: Whether its session has.
    """

    caller: Caller
    address: str
    token: SessionToken | None = None
    comes_back: bool = False
    has_started: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is not taken.

    Attributes:
        reason: In a word, for the operator.
        error: For the client.
    """

    reason: Literal["origin", "token", "address", "quota", NotReady]
    error: ProtocolError


class Admission:
    """The door. Nothing here knows of sockets; times are in seconds.

    Attributes:
        load: How the server keeps up.
        quotas: What callers have taken.
        session_tokens: Those that were issued.
        tokens: Those that are accepted; they may be exchanged.
        hosts: Names of the server; narrow until it is known who reaches it.
        is_stopping: Nobody is taken any more.
    """

    def __init__(
        self,
        options: AccessOptions,
        *,
        max_sessions: int,
        origins: tuple[str, ...],
        tokens: Tokens,
        is_overloaded: Callable[[], bool],
        why_unfit: Callable[[], Unfit | None] = lambda: None,
        count_expected: Callable[[], int] = lambda: 0,
        ledger: Ledger | None = None,
        token_signer: TokenSigner | None = None,
    ) -> None:
        """Open.

        Args:
            options: Who may connect.
            max_sessions: Most at once.
            origins: Web pages that may connect, beside the server's own.
            tokens: Those that are accepted.
            is_overloaded: Whether the engine does not keep up or does not work.
            why_unfit: What else keeps the server from taking more.
            count_expected: How many sessions wait for their client to come back.
            ledger: Where connections are counted; None: by this process alone.
            token_signer: Signs tokens for one session; None: they are this server's own.
        """
        ledger = ledger or OwnLedger()
        self.load = LoadWatch()
        self.quotas = ledger.quotas
        self.session_tokens = SessionTokens(
            ledger.token_records, options.session_token_ttl_s, token_signer
        )
        self.tokens = tokens
        self.hosts = Hosts(options.allowed_hosts)
        self.is_stopping = False
        self._options = options
        self._max_sessions = max_sessions
        self._origins = origins
        self._is_overloaded = is_overloaded
        self._why_unfit = why_unfit
        self._count_expected = count_expected
        self._ledger = ledger
        self._places: set[Place] = set()
        self._knocks: deque[float] = deque(maxlen=_MOST_KNOCKS)
        # When those were taken that are young; they leave it when they leave.
        self._young: OrderedDict[Place, float] = OrderedDict()

    # --- who it is --------------------------------------------------------------------------------

    def may_come_from_there(self, request: Request | None) -> bool:
        """Whether a request is of no web page, or of one that may; see :func:`is_allowed`."""
        return is_allowed(request, self._origins, self.hosts.names)

    def is_for_this_server(self, request: Request) -> bool:
        """Whether a request names this server; see :class:`Hosts`."""
        return self.hosts.is_own(request)

    def peer(self, remote: str, request: Request | None) -> str:
        """Address of the client; see :func:`peer_address`."""
        return peer_address(remote, request, self._options.trusted_proxies)

    def stands_for_many(self, address: str) -> bool:
        """Whether many clients may come from one address: a proxy's, or this machine's own."""
        return address in _OWN or is_in(address, self._options.trusted_proxies)

    def caller(
        self, request: Request | None, now: float
    ) -> tuple[Caller | None, SessionToken | None]:
        """Who sent a request, and the short-lived token that says so, if it was one."""
        known = self.tokens.admit(request)
        if known is not None or request is None:
            return known, None
        found = self.session_tokens.find(sent_tokens(request), now)
        return (None, None) if found is None else (found.caller, found)

    # --- whether there is room --------------------------------------------------------------------

    def enter(
        self, request: Request | None, remote: str, now: float, *, may_come_back: bool = False
    ) -> Place | Refusal:
        """Take a connection, or say why not.

        Args:
            request: Its opening handshake.
            remote: Its other end.
            now: In seconds.
            may_come_back: Whether it can ask for a session that it had, so that a token is of use
                that is spent.
        """
        return self._admit(request, remote, now, takes=True, may_come_back=may_come_back)

    def refusal(self, request: Request, remote: str, now: float) -> Refusal | None:
        """Why a connection would not be taken, if so, before it is made; see :meth:`enter`."""
        found = self._admit(request, remote, now, takes=False)
        return found if isinstance(found, Refusal) else None

    def _admit(
        self,
        request: Request | None,
        remote: str,
        now: float,
        *,
        takes: bool,
        may_come_back: bool = False,
    ) -> Place | Refusal:
        if not self.may_come_from_there(request):
            detail = "expected an origin that is allowed here, got another"
            return Refusal("origin", ProtocolError(ErrorName.ORIGIN_REFUSED, detail))
        caller, token = self.caller(request, now)
        if caller is None or (token is not None and token.is_spent and not may_come_back):
            detail = "expected a valid token, got none"
            return Refusal("token", ProtocolError(ErrorName.NOT_AUTHORISED, detail))
        with self._ledger.exclusively():
            address = self.peer(remote, request)
            return self._enter(caller, token, address, now, takes=takes)

    def _enter(
        self, caller: Caller, token: SessionToken | None, address: str, now: float, *, takes: bool
    ) -> Place | Refusal:
        if token is not None and self.session_tokens.again(token, now) != token:
            # Another process has used it since.
            detail = "expected a token that was not used yet, got one that was"
            return Refusal("token", ProtocolError(ErrorName.NOT_AUTHORISED, detail))
        if (crowded := self._crowded(address_group(address))) is not None:
            return Refusal("address", crowded)
        if (over := self.quotas.refusal(caller) or self.quotas.excess(caller, now)) is not None:
            return Refusal("quota", over)
        if (why_not := self.why_not_ready(now)) is not None:
            self._knocks.append(now)
            return Refusal(why_not, self._explain(why_not, now))
        comes_back = token is not None and token.is_spent
        if takes and token is not None and not comes_back:
            token = self.session_tokens.spend(token, now)
        place = Place(caller, address, token, comes_back)
        return self._take(place, now) if takes else place

    def start(self, place: Place) -> None:
        """Its session has started."""
        if not place.has_started:
            place.has_started = True
            self._ledger.waiting.add(address_group(place.address), -1)

    def leave(self, place: Place) -> None:
        """The connection is gone."""
        self._places.discard(place)
        self._young.pop(place, None)
        self.quotas.close(place.caller)
        if place.token is not None and not (place.has_started or place.comes_back):
            self.session_tokens.give_back(place.token)
        group = address_group(place.address)
        self._ledger.places.add("", -1)
        self._ledger.addresses.add(group, -1)
        if not place.has_started:
            self._ledger.waiting.add(group, -1)

    def finish(self, place: Place) -> None:
        """What the connection was taken for is done: nobody comes back for it."""
        self.leave(place)
        if place.token is not None:
            self.session_tokens.end(place.token.key)

    def move_in(self, place: Place, now: float) -> Place:
        """Take a connection that was taken elsewhere and comes for a session that is here.

        Args:
            place: What it was taken for there.
            now: In seconds.
        """
        if place.token is not None and not place.comes_back:
            self.session_tokens.spend(place.token, now)
        return self._take(replace(place, has_started=False), now)

    def move_out(self, place: Place) -> None:
        """A connection has gone to where its session is; :meth:`leave` follows."""
        place.token = None  # that knows of it there

    def why_not_ready(self, now: float) -> NotReady | None:
        """Why a new session would not be taken, whoever opens it; None: it would."""
        if self.is_stopping:
            return "stopping"
        if self._ledger.places.count("") >= self._max_sessions:
            return "full"
        if (unfit := self._why_unfit()) is not None:
            return unfit
        bound_ms, wait_ms = self._options.max_final_wait_ms, 1000 * self.load.wait_s(now)
        if self._is_overloaded():
            return "overloaded"
        if bound_ms is None:
            return None
        if wait_ms > _HEADROOM * bound_ms:
            return "overloaded"
        while self._young and now - next(iter(self._young.values())) > _YOUNG_S:
            self._young.popitem(last=False)
        # Squared: the fuller a server is, the more each session lengthens the wait.
        young = self._count_young()
        settled = len(self._places) - len(self._young)
        most = max(self._options.max_young_sessions, _GROWTH * settled)
        room = most * (1 - wait_ms / (_HEADROOM * bound_ms)) ** 2
        # Those who come back to a session that is there cost no more than they did.
        room += self._count_expected()
        return "filling" if young >= max(1.0, room) else None

    def _count_young(self) -> int:
        """How many have just come, or may be about to start.

        Of one address few count that have not started: whoever connects and says nothing must not
        keep others out.
        """
        silent: Counter[str] = Counter()
        started = 0
        for place in self._young:
            if place.has_started or self.stands_for_many(place.address):
                started += 1
            else:
                silent[address_group(place.address)] += 1
        return started + sum(min(_MOST_SILENT, count) for count in silent.values())

    # --- inside -----------------------------------------------------------------------------------

    def _take(self, place: Place, now: float) -> Place:
        group = address_group(place.address)
        self._places.add(place)
        self._ledger.places.add("", 1)
        self._ledger.addresses.add(group, 1)
        self._ledger.waiting.add(group, 1)
        self._young[place] = now
        self.quotas.open(place.caller, now)
        return place

    def _crowded(self, group: str) -> ProtocolError | None:
        options = self._options
        if group in _OWN:
            # A proxy of this machine that is not declared: many clients, or the operator's own.
            return None
        if self._ledger.addresses.count(group) >= options.max_sessions_per_address:
            most, what = options.max_sessions_per_address, "connections from one address"
        elif self._ledger.waiting.count(group) >= options.max_waiting_per_address:
            most, what = options.max_waiting_per_address, "connections without session.start"
        else:
            return None
        return ProtocolError(
            ErrorName.OVER_QUOTA, f"expected at most {most} {what} at once, got one more"
        )

    def _explain(self, why_not: NotReady, now: float) -> ProtocolError:
        match why_not:
            case "stopping":
                return ProtocolError(ErrorName.GOING_AWAY, "expected to go on, got a shutdown")
            case "full":
                detail = f"expected at most {self._max_sessions} sessions, got one more"
                return self._later(detail, _FULL_MS, now)
            case "unfit":
                detail = "expected an engine that works, got a failed self-test"
                return self._later(detail, _FULL_MS, now)
            case "memory":
                detail = "expected memory for one more session, got too little"
                return self._later(detail, _FULL_MS, now)
            case "overloaded":
                detail = "expected an engine that keeps up, got an overload"
                return self._later(detail, _OVERLOADED_MS, now)
            case "filling":
                detail = "expected sessions to come one after the other, got many at once"
                return self._later(detail, round(1000 * _YOUNG_S), now)

    def _later(self, detail: str, delay_ms: int, now: float) -> ProtocolError:
        while self._knocks and now - self._knocks[0] > _KNOCKS_S:
            self._knocks.popleft()
        delay_ms = max(delay_ms, 1000 * len(self._knocks) // _KNOCKS_PER_S)
        # Not all at the same moment.
        spread_ms = round(delay_ms * random.uniform(1.0, 1.5))
        return ProtocolError(ErrorName.TRY_AGAIN_LATER, detail, retry_after_ms=spread_ms)
