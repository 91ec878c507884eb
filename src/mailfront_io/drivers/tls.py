"""TLS as a layer of operations, for every driver.

When a session awaits `StartTLS`, its driver puts `tls_layer` around the coroutine and steps that instead.
To the driver the layer is a session whose `Recv` and `Send` carry ciphertext; to the session it is a driver
whose `Recv` and `Send` carry plain text; every other operation passes through untouched. Between the two
stands OpenSSL with a memory BIO on each side, so no driver knows anything about TLS, and leftovers, SNI,
handshake deadlines and close_notify are dealt with here and nowhere else.

The layer owns the coroutine: what the driver throws in (deadline, reset, cancellation) is thrown on into the
session at the operation that it awaits. Once TLS has failed every later `Recv` and `Send` fails too: nothing
is ever read or sent in plain text on a stream for which TLS was asked.

No driver imports this module before the first `StartTLS`: `ssl` is expensive to import.
"""

import ssl
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from mailfront_io.ops import (
    CLEANUP_SECONDS,
    RECEIVE_SIZE,
    Cancelled,
    Clock,
    ConnectionLost,
    DeadlineExceeded,
    Operation,
    Recv,
    Send,
    StartTLS,
    TLSFacts,
    TLSFailed,
)
from mailfront_proto.client_hello import NO_APPLICATION_PROTOCOL, offered_protocols

T = TypeVar("T")
Steps = Generator[Operation[Any], Any, T]

RECORD_SIZE = 16 * 1024
"""The plain text of one TLS record at most (RFC 8446 5.1): one `read` of it empties a record."""


def tls_layer(session: Coroutine[Operation[Any], Any, T] | Steps[T], start: StartTLS, clock: Clock) -> Steps[T]:
    """Do the handshake that `session` asks for with `start`, then step it inside TLS to its end."""
    tls: _TLS | None = None
    answer: Any = None
    error: BaseException | None = None
    try:
        tls = _TLS(start)
        if start.server_side:
            yield from tls.check_alpn(start.alpn, start.deadline)
        answer = yield from tls.handshake(start.deadline)
    except GeneratorExit:
        session.close()
        raise
    except BaseException as caught:  # thrown in by the driver, or TLSFailed: the session's to handle
        error = caught
    while True:
        try:
            operation: Any = session.send(answer) if error is None else session.throw(error)
        except StopIteration as end:
            if tls is not None:
                yield from tls.close(clock)
            result: T = end.value
            return result
        except Cancelled:
            if tls is not None:
                yield from tls.close(clock)
            raise
        finally:
            error = None  # its traceback holds this frame: leave no cycle
        answer = None
        kind = type(operation)
        try:
            if kind is Recv and tls is not None:
                answer = yield from tls.recv(operation)
            elif kind is Send and tls is not None:
                yield from tls.send(operation.data, operation.deadline)
            elif kind is StartTLS:
                error = RuntimeError("StartTLS inside TLS: a session may start TLS once")
            elif kind is Recv or kind is Send:
                error = TLSFailed("TLS could not be set up")
            else:
                answer = yield operation
        except GeneratorExit:
            session.close()
            raise
        except BaseException as caught:
            error = caught


class _SSLObject(ssl.SSLObject):
    """OpenSSL's object for one connection, and the name that its client asked for."""

    asked_name: str | None = None


class _TLS:
    """One TLS connection between two memory BIOs; its methods are generators of raw operations."""

    __slots__ = ("_eof", "_failure", "_incoming", "_object", "_outgoing")

    def __init__(self, start: StartTLS) -> None:
        self._failure: str | None = "the TLS handshake was not completed"
        self._eof = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        _prepare(start.context, start.server_side)
        self._object = start.context.wrap_bio(self._incoming, self._outgoing, start.server_side, start.server_hostname)

    def check_alpn(self, spoken: tuple[str, ...], deadline: float | None) -> Generator[Operation[Any], Any, None]:
        """Read the ClientHello, and turn away a client that asks for other protocols than `spoken`: OpenSSL
        as `ssl` sets it up goes on without one, which lets a browser talk to us (ALPACA)."""
        hello = b""
        while (offered := offered_protocols(hello)) is None:
            data = yield Recv(deadline)
            if not data:
                raise self._fail("the peer closed the connection during the TLS handshake")
            hello += data
        self._incoming.write(hello)
        if offered and not {name.encode() for name in spoken}.intersection(offered):
            names = ", ".join(name.decode("ascii", "backslashreplace") for name in offered[:8])
            try:
                yield Send(NO_APPLICATION_PROTOCOL, deadline)
            except (DeadlineExceeded, ConnectionLost):
                pass  # that it cannot be told changes nothing
            raise self._fail(f"the client wants to speak {names}, which is not served here")

    def handshake(self, deadline: float | None) -> Generator[Operation[Any], Any, TLSFacts]:
        """Shake hands before `deadline`, with every exception that a raw operation may throw."""
        tls = self._object
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                yield from self._flush(deadline)
                data = yield Recv(deadline)
                if not data:
                    raise self._fail("the peer closed the connection during the TLS handshake") from None
                self._incoming.write(data)
            except ssl.SSLError as error:
                failed = self._fail(_reason(error))
                yield from self._send_alert(deadline)
                raise failed from error
        yield from self._flush(deadline)  # our Finished, and in TLS 1.3 the session tickets
        self._failure = None
        name, _, bits = tls.cipher() or ("", "", 0)
        return TLSFacts(
            protocol=tls.version() or "",
            cipher=name,
            secret_bits=bits or 0,
            sni=tls.asked_name if isinstance(tls, _SSLObject) else None,
            alpn=tls.selected_alpn_protocol(),
            peer_certificate=tls.getpeercert(True),
        )

    def recv(self, operation: Recv) -> Generator[Operation[Any], Any, bytes]:
        """All plain text that is there, at most `RECEIVE_SIZE` bytes; ``b""`` at the end of the stream, which
        is close_notify or the end of the ciphertext without it: mail protocols mark what is complete.

        Ciphertext is asked for with the session's own operation, so its deadline and `idle` hold; its output was
        encrypted and sent before.
        """
        if operation.output:
            yield from self.send(operation.output, operation.deadline)
            operation.output = b""
        while not self._eof:
            if self._failure is not None:
                raise TLSFailed(self._failure)
            plain: list[bytes] = []
            room = RECEIVE_SIZE
            try:
                while room > 0 and (data := self._object.read(min(room, RECORD_SIZE))):
                    plain.append(data)
                    room -= len(data)
                    if not self._incoming.pending:
                        break  # spares the exception that says so; what is left inside comes next time
                else:
                    self._eof = room > 0  # close_notify
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self._eof = True
            except ssl.SSLError as error:
                failed = self._fail(_reason(error))
                if not plain:
                    yield from self._send_alert(operation.deadline)
                    raise failed from error
            if self._outgoing.pending:  # a key update wants its answer
                yield from self._flush(operation.deadline)
            if plain:
                return plain[0] if len(plain) == 1 else b"".join(plain)
            if not self._eof:
                if data := (yield operation):
                    self._incoming.write(data)
                else:
                    self._eof = True  # OpenSSL is not told: it would answer with an alert and refuse to write
        return b""

    def send(self, data: bytes, deadline: float | None) -> Generator[Operation[Any], Any, None]:
        """Encrypt and send all of `data`."""
        if self._failure is not None:
            raise TLSFailed(self._failure)
        view = memoryview(data)
        try:
            while view:
                view = view[self._object.write(view) :]  # one record at a time
        except ssl.SSLError as error:
            raise self._fail(_reason(error)) from error
        yield from self._flush(deadline)

    def close(self, clock: Clock) -> Generator[Operation[Any], Any, None]:
        """Send close_notify; the peer's is not waited for (RFC 8446 6.1 lets us close at once)."""
        if self._failure is not None:
            return
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # "want read", for the peer's close_notify
        try:
            yield from self._flush(clock.monotonic() + CLEANUP_SECONDS)
        except (DeadlineExceeded, ConnectionLost, Cancelled):
            pass  # the session is over; its result stands

    def _flush(self, deadline: float | None) -> Generator[Operation[Any], Any, None]:
        """Send the ciphertext that OpenSSL has produced."""
        if self._outgoing.pending:
            failure, self._failure = self._failure, "sending was broken off inside a TLS record"
            yield Send(self._outgoing.read(), deadline)
            self._failure = failure  # only a Send that was completed leaves the stream usable

    def _send_alert(self, deadline: float | None) -> Generator[Operation[Any], Any, None]:
        """Tell the peer why TLS failed; that it cannot be told changes nothing."""
        try:
            if self._outgoing.pending:
                yield Send(self._outgoing.read(), deadline)
        except (DeadlineExceeded, ConnectionLost):
            pass

    def _fail(self, reason: str) -> TLSFailed:
        self._failure = reason
        return TLSFailed(reason)


def _reason(error: ssl.SSLError) -> str:
    """The cause in words: OpenSSL's reason without file names and line numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was not accepted: {error.verify_message}"
    reason = error.reason or "unknown error"
    return f"TLS error: {reason.replace('_', ' ').lower()}"


def _prepare(context: Any, server_side: bool) -> None:
    """Set what every connection needs in `context`, once: no renegotiation, SNI remembered."""
    if not context.options & ssl.OP_NO_RENEGOTIATION:
        context.options |= ssl.OP_NO_RENEGOTIATION
    if not server_side or context.sslobject_class is _SSLObject:
        return
    own = context.sni_callback

    def remember_name(tls: Any, name: str | None, context: ssl.SSLContext) -> Any:
        if isinstance(tls, _SSLObject):
            tls.asked_name = name
        return own(tls, name, context) if own is not None else None

    context.sni_callback = remember_name
    context.sslobject_class = _SSLObject  # last: it marks the context as done, for other threads too
