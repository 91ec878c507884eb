"""TLS as a layer of operations, for every driver.

When a session awaits `StartTLS`, its driver puts `tls_layer` around the coroutine and steps that instead.
To the driver the layer is a session whose `Recv` and `Send` carry ciphertext; to the session it is a driver
whose `Recv` and `Send` carry plain text; every other operation passes through untouched. Between the two
stands OpenSSL with a memory BIO on each side, so no driver knows anything about TLS, and leftovers, SNI,
handshake deadlines and close_notify are dealt with here and nowhere else.

The layer owns the coroutine: what the driver throws in (deadline, reset, cancellation) is thrown on into the
session at the operation that it awaits. Once TLS has failed every later `Recv` and `Send` fails too: nothing
is ever read or sent in plain text on a stream for which TLS was asked.

The operations on other peers and on programs (`drivers.operations`) go between the session and this layer, so that
what they do with the session's stream (`OwnStream`) is done inside TLS. Peers that we connect to have TLS from here
as well (`start_tls`).

No driver imports this module before the first `StartTLS`: `ssl` is expensive to import.
"""

import ssl
from collections.abc import Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mailfront_io.drivers.stepper import Interest, OwnStream, Ready, TakeOver
from mailfront_io.ops import (
    CLEANUP_SECONDS,
    RECEIVE_SIZE,
    Cancelled,
    Clock,
    ConnectionLost,
    DeadlineExceeded,
    Operation,
    Recv,
    RecvLine,
    Send,
    Sleep,
    StartTLS,
    Thread,
    TLSFacts,
    TLSFailed,
)
from mailfront_proto.client_hello import NO_APPLICATION_PROTOCOL, offered_protocols

if TYPE_CHECKING:
    from mailfront_io.drivers.doors import Doors
    from mailfront_io.drivers.streams import Stream

T = TypeVar("T")
Steps = Generator[Operation[Any], Any, T]

RECORD_SIZE = 16 * 1024
"""The plain text of one TLS record at most (RFC 8446 5.1): one `read` of it empties a record."""


def tls_layer(
    session: Coroutine[Operation[Any], Any, T] | Steps[T], start: StartTLS, clock: Clock, doors: "Doors | None" = None
) -> Steps[T]:
    """Do the handshake that `session` asks for with `start`, then step it inside TLS to its end. `doors`: for
    `operations_layer`."""
    tls: _TLS | None = None
    answer: Any = None
    error: BaseException | None = None
    try:
        tls = _TLS(start)
        if start.server_side:
            yield from tls.check_alpn(start)
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
            elif kind is RecvLine and tls is not None:  # what is ahead of it is ours in any case
                inside = Recv(operation.deadline, operation.idle, operation.output)
                try:
                    answer = yield from tls.recv(inside)
                finally:
                    operation.output = inside.output
            elif kind is OwnStream and tls is not None:
                answer = TLSStream(tls, (yield operation), own=True)
            elif kind is TakeOver:
                answer = None
            elif kind in (Recv, RecvLine, Send, OwnStream):
                error = TLSFailed("TLS could not be set up")
            elif kind in (Thread, Sleep, Ready) or not isinstance(operation, Operation):
                answer = yield operation
            else:
                from mailfront_io.drivers.operations import operations_layer

                session = operations_layer(session, operation, clock, doors)
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

    def check_alpn(self, start: StartTLS) -> Generator[Operation[Any], Any, None]:
        """Read the ClientHello, and turn away a client that asks for other protocols than are spoken here: OpenSSL
        as `ssl` sets it up goes on without one, which lets a browser talk to us (ALPACA)."""
        hello, spoken, deadline = start.received, start.alpn, start.deadline
        while (offered := offered_protocols(hello)) is None:
            data = yield Recv(deadline)
            if not data:
                raise self.fail("the peer closed the connection during the TLS handshake")
            hello += data
        self._incoming.write(hello)
        if offered and not {name.encode() for name in spoken}.intersection(offered):
            names = ", ".join(name.decode("ascii", "backslashreplace") for name in offered[:8])
            try:
                yield Send(NO_APPLICATION_PROTOCOL, deadline)
            except (DeadlineExceeded, ConnectionLost):
                pass  # that it cannot be told changes nothing
            raise self.fail(f"the client wants to speak {names}, which is not served here")

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
                    raise self.fail("the peer closed the connection during the TLS handshake") from None
                self._incoming.write(data)
            except ssl.SSLError as error:
                failed = self.fail(_reason(error))
                yield from self._send_alert(deadline)
                raise failed from error
        yield from self._flush(deadline)  # our Finished, and in TLS 1.3 the session tickets
        self._failure = None
        name, _, bits = tls.cipher() or ("", "", 0)
        certificate = tls.getpeercert(True)
        return TLSFacts(
            protocol=tls.version() or "",
            cipher=name,
            secret_bits=bits or 0,
            sni=tls.asked_name if isinstance(tls, _SSLObject) else None,
            alpn=tls.selected_alpn_protocol(),
            peer_certificate=certificate,
            verified_client=_content(tls) if certificate and tls.server_side else None,
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
        while True:
            try:
                plain = self.decrypt()
            except TLSFailed:
                yield from self._send_alert(operation.deadline)
                raise
            if self._outgoing.pending:  # a key update wants its answer
                yield from self._flush(operation.deadline)
            if plain is not None:
                return plain
            self.feed((yield operation))

    def decrypt(self) -> bytes | None:
        """All plain text that is there, at most `RECEIVE_SIZE` bytes; None: more ciphertext is needed; ``b""``: the
        end. Raises TLSFailed; what OpenSSL wants to say to that is pending."""
        if self._eof:
            return b""
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
            failed = self.fail(_reason(error))
            if not plain:
                raise failed from error
        if plain:
            return plain[0] if len(plain) == 1 else b"".join(plain)
        return b"" if self._eof else None

    def feed(self, ciphertext: bytes) -> None:
        """Take what the peer has sent; ``b""``: the end of its stream."""
        if ciphertext:
            self._incoming.write(ciphertext)
        else:
            self._eof = True  # OpenSSL is not told: it would answer with an alert and refuse to write

    def send(self, data: bytes, deadline: float | None) -> Generator[Operation[Any], Any, None]:
        """Encrypt and send all of `data`."""
        self.encrypt(memoryview(data))
        yield from self._flush(deadline)

    def encrypt(self, view: memoryview) -> None:
        """Encrypt all of `view`. Raises TLSFailed."""
        if self._failure is not None:
            raise TLSFailed(self._failure)
        try:
            while view:
                view = view[self._object.write(view) :]  # one record at a time
        except ssl.SSLError as error:
            raise self.fail(_reason(error)) from error

    def pending(self) -> bytes:
        """The ciphertext that OpenSSL has produced and that was not sent."""
        return self._outgoing.read()

    def say_close(self) -> None:
        """Produce close_notify; what the peer still says can be read all the same."""
        if self._failure is None:
            try:
                self._object.unwrap()
            except ssl.SSLError:
                pass  # "want read", for the peer's close_notify

    def close(self, clock: Clock) -> Generator[Operation[Any], Any, None]:
        """Send close_notify; the peer's is not waited for (RFC 8446 6.1 lets us close at once)."""
        if self._failure is not None:
            return
        self.say_close()
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

    def fail(self, reason: str) -> TLSFailed:
        """Read and send nothing more."""
        self._failure = reason
        return TLSFailed(reason)


class TLSStream:
    """A `streams.Stream` inside TLS, around another. `own`: the session's; it goes on when this object is closed."""

    def __init__(self, tls: _TLS, raw: "Stream", own: bool = False) -> None:
        self._tls = tls
        self._raw = raw
        self._own = own
        self._held = memoryview(b"")  # ciphertext
        self._finishing = self._finished = False

    def read(self) -> bytes | None:
        """See `Stream`."""
        while True:
            try:
                plain = self._tls.decrypt()
            finally:
                self.flush()  # an alert, a key update
            if plain is not None:
                return plain
            data = self._raw.read()
            if data is None:
                return None
            self._tls.feed(data)

    def write(self, data: memoryview) -> int:
        """See `Stream`."""
        if not self.flush():
            return 0
        data = data[:RECEIVE_SIZE]
        self._tls.encrypt(data)
        self.flush()
        return len(data)

    def finish(self) -> None:
        """See `Stream`."""
        if not self._finishing:
            self._tls.say_close()
            self._finishing = True
            self.flush()

    def flush(self) -> bool:
        """See `Stream`."""
        while self._held or (pending := self._tls.pending()):
            self._held = self._held or memoryview(pending)
            written = self._raw.write(self._held)
            if not written:
                return False
            self._held = self._held[written:]
        if self._finishing and not self._finished:
            self._finished = True
            self._raw.finish()
        return self._raw.flush()

    def reading(self) -> Sequence[Interest]:
        """See `Stream`."""
        return [*self._raw.reading(), *self._raw.writing()] if self._held else self._raw.reading()

    def writing(self) -> Sequence[Interest]:
        """See `Stream`."""
        return self._raw.writing()

    def gone(self) -> bool:
        """See `Stream`."""
        return self._raw.gone()

    def close(self) -> None:
        """See `Stream`."""
        try:
            if not self._own:
                self.finish()
            elif not self.flush():
                self._tls.fail("sending was broken off inside a TLS record")
        except (ConnectionLost, TLSFailed):
            pass
        self._raw.close()


def start_tls(
    raw: "Stream", context: ssl.SSLContext, server_hostname: str | None, deadline: float | None
) -> Generator[Operation[Any], Any, tuple[TLSFacts, TLSStream]]:
    """Do the handshake as a client on a stream that is not the session's; what may be thrown: see `StartTLS`."""
    from mailfront_io.drivers.doors import receive, transmit

    tls = _TLS(StartTLS(context, False, server_hostname, deadline))
    handshake = tls.handshake(deadline)
    answer: bytes | None = None
    error: BaseException | None = None
    while True:
        try:
            operation = handshake.send(answer) if error is None else handshake.throw(error)
        except StopIteration as end:
            return end.value, TLSStream(tls, raw)
        answer = error = None
        try:
            if isinstance(operation, Send):
                yield from transmit(raw, operation.data, deadline)
            else:
                answer = yield from receive(raw, deadline)
        except (ConnectionLost, DeadlineExceeded) as failed:
            error = failed


def _content(tls: ssl.SSLObject) -> dict[str, Any]:
    """What is in the certificate of a client. (It verifies: no server context goes on with one that does not.)"""
    try:
        return tls.getpeercert() or {}
    except (ValueError, ssl.SSLError):  # names that are no text: whatever the authority has signed there
        return {}


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
