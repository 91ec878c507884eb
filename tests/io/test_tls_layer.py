"""The TLS layer by itself: a session inside, a hand-stepped driver and an in-memory client outside."""

import gc
import ssl
import subprocess
import sys
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.drivers import blocking
from mailfront_io.drivers.tls import tls_layer
from mailfront_io.ops import (
    RECEIVE_SIZE,
    Cancelled,
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    Operation,
    Recv,
    Send,
    Sleep,
    StartTLS,
    Stopping,
    TLSFacts,
    TLSFailed,
)
from mailfront_io.testing import (
    CANCEL,
    EOF,
    RESET,
    STALL,
    STOP,
    Action,
    Advance,
    PeerTLS,
    Played,
    VirtualClock,
    WaitFor,
    run_script,
)
from tests.certificates import certificate, client_context, server_context, write_pem
from tests.io.peer import Server

NAME = "mx.example.org"
CLIENT = PeerTLS(client_context(), NAME)
HELLO = b"\x16\x03\x01"  # the head of a ClientHello record


def play(body: Any, script: list[Action], **options: Any) -> Played:
    """Run the session `body(connection, start)`, where `start` is a StartTLS with 30 seconds."""

    def session(connection: Connection) -> Coroutine[Operation[Any], Any, int]:
        start = StartTLS(server_context(), True, deadline=connection.clock.monotonic() + 30)
        coroutine: Coroutine[Operation[Any], Any, int] = body(connection, start)
        return coroutine

    return run_script(session, script, **options)


def test_facts_and_data() -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        facts = await start
        assert isinstance(facts, TLSFacts)
        assert (facts.protocol, facts.sni, facts.secret_bits, facts.alpn) == ("TLSv1.3", NAME, 256, None)
        assert facts.cipher.startswith("TLS_")
        assert facts.peer_certificate is None
        await Send(b"<" + await Recv() + b">")
        await Send(b"")
        await Send(bytes(100_000))
        return 5

    played = play(session, [CLIENT, b"a"])
    assert played.output == b"<a>" + bytes(100_000)
    assert played.result == 5


def test_client_certificate() -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        start.context.verify_mode = ssl.CERT_OPTIONAL
        with pytest.raises(TLSFailed, match="certificate was not accepted"):
            await start
            await Recv()
        return 0

    context = client_context()
    certificate("nobody.example").configure_cert(context)
    play(session, [PeerTLS(context, NAME)])


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([b"EHLO x\r\n"], TLSFailed),
        ([b"GET / HTTP/1.1\r\n"], TLSFailed),
        ([HELLO + b"\x00\x05" + b"\xff" * 5], TLSFailed),
        ([b"\x15\x03\x01\x00\x02\x02\x28"], TLSFailed),
        ([b"\x80\x2e\x01\x00\x02" + bytes(60)], TLSFailed),
        ([EOF], TLSFailed),
        ([HELLO, EOF], TLSFailed),
        ([RESET], ConnectionLost),
        ([HELLO, RESET], ConnectionLost),
        ([], DeadlineExceeded),
        ([HELLO], DeadlineExceeded),
        ([HELLO + b"\x02\x00"] + [Advance(20), b"\x01"] * 3, DeadlineExceeded),
    ],
)
def test_h34_handshakes_that_fail_or_stall(script: list[Action], error: type[Exception]) -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        await Send(b"220 go\r\n")
        with pytest.raises(error):
            await start
        for operation in (Recv(), Send(b"421 in plain text\r\n")):  # never again
            with pytest.raises((TLSFailed, ConnectionLost)):
                await operation
        await Sleep(1)  # the rest of the world is there
        return 0

    played = play(session, [WaitFor(b"220 go\r\n"), *script], all_read=False)
    assert played.output.startswith(b"220 go\r\n")
    assert b"421" not in played.output
    assert played.elapsed == (31 if error is DeadlineExceeded else 1)


def test_a_peer_that_does_not_read_the_handshake() -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        with pytest.raises(DeadlineExceeded):
            await start
        with pytest.raises(TLSFailed):
            await Recv()
        return 0

    assert play(session, [CLIENT, STALL], all_read=False).elapsed == 30


def test_deadlines_idle_and_cancellation_pass_through() -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        now = connection.clock.monotonic
        began = now()
        await start
        with pytest.raises(DeadlineExceeded):
            await Recv(began + 10)
        await Send(b"late\r\n", began + 20)  # a Recv that was late leaves the stream whole
        with pytest.raises(Stopping):
            await Recv(began + 1000, idle=True)
        assert now() - began == 40
        try:
            await Recv(began + 1000)
        finally:
            assert now() - began == 50
            await Send(b"421 bye\r\n")
        return 0

    played = play(session, [CLIENT, Advance(40), STOP, Advance(10), CANCEL], catch=True)
    assert isinstance(played.error, Cancelled)
    assert played.output == b"late\r\n421 bye\r\n"


def test_a_send_that_was_late_leaves_the_stream_broken() -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        await start
        await Recv()
        with pytest.raises(DeadlineExceeded):
            await Send(b"x", connection.clock.monotonic() + 5)
        with pytest.raises(TLSFailed, match="broken off"):
            await Send(b"y")
        with pytest.raises(TLSFailed, match="broken off"):
            await Recv()
        return 0

    assert play(session, [CLIENT, b"a", STALL]).elapsed == 5


def test_a_second_start_is_refused() -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        await start
        with pytest.raises(RuntimeError, match="once"):
            await start
        await Send(await Recv())
        return 0

    assert play(session, [CLIENT, b"x"]).output == b"x"


def test_errors_of_the_session_are_its_own() -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        await start
        raise LookupError

    with pytest.raises(LookupError):
        play(session, [CLIENT])


def test_a_stream_that_is_cut_off_is_at_its_end() -> None:
    async def session(connection: Connection, start: StartTLS) -> int:
        await start
        assert await Recv() == b"x"
        assert await Recv() == b""
        assert await Recv() == b""
        await Send(b"y")
        return 0

    assert play(session, [CLIENT, b"x", EOF]).output == b"y"


def test_foreign_objects_are_the_drivers_to_refuse() -> None:
    class Foreign:
        def __await__(self) -> Generator[Any, Any, None]:
            yield self

    async def session(connection: Connection, start: StartTLS) -> int:
        await start
        with pytest.raises(TypeError, match="no operation"):
            await Foreign()
        return 0

    play(session, [CLIENT])


# Stepped by hand


class Client:
    """An in-memory client, and the layer around `session`, which the methods step."""

    def __init__(self, session: Any, context: ssl.SSLContext | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        start = StartTLS(context or server_context(), True)
        self.layer = tls_layer(session, start, VirtualClock())
        self.operation = self.layer.send(None)

    def shake(self) -> None:
        """Do the handshake; the layer then waits for what the session wants next."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.exchange()
        self.exchange()

    def exchange(self) -> None:
        """Carry what there is to and fro until the layer asks for more, or for something else."""
        while True:
            if type(self.operation) is Send:
                self.incoming.write(self.operation.data)
                self.operation = self.layer.send(None)
            elif type(self.operation) is Recv and self.outgoing.pending:
                self.operation = self.layer.send(self.outgoing.read(RECEIVE_SIZE))
            else:
                return


def test_one_recv_hands_out_all_records_that_have_come() -> None:
    async def session() -> int:
        await start_of(session_context)
        while data := await Recv():
            sizes.append(len(data))
        return 0

    session_context = server_context()
    sizes: list[int] = []
    inner = session()
    inner.send(None)
    client = Client(inner, session_context)
    client.shake()
    for _ in range(40):
        client.tls.write(bytes(1000))  # a record each
    client.exchange()
    assert sizes == [40_000]
    view = memoryview(bytes(300_000))
    while view:
        view = view[client.tls.write(view) :]
    client.exchange()
    assert sum(sizes) == 340_000
    assert max(sizes) <= RECEIVE_SIZE
    assert len(sizes) <= 1 + 300_000 // 40_000
    client.tls.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    with pytest.raises(StopIteration):  # close_notify ends it, in the same read
        client.exchange()
    assert sizes[-1] == 4


def start_of(context: ssl.SSLContext) -> StartTLS:
    return StartTLS(context, True)


def test_the_end_sends_close_notify_and_waits_for_nothing() -> None:
    async def session() -> int:
        await start_of(context)
        await Send(b"bye")
        return 7

    context = server_context()
    inner = session()
    inner.send(None)
    client = Client(inner, context)
    with pytest.raises(StopIteration) as end:
        client.shake()
    assert end.value.value == 7
    assert client.tls.read(10) == b"bye"
    assert client.tls.read(10) == b""  # without close_notify it would want to read


def test_closing_the_layer_closes_the_session() -> None:
    async def session() -> int:
        try:
            await start_of(context)
            await Recv()
        finally:
            closed.append(True)
        return 0

    context = server_context()
    for shake in (False, True):
        closed: list[bool] = []
        inner = session()
        inner.send(None)
        client = Client(inner, context)
        if shake:
            client.shake()
        client.layer.close()
        assert closed == [True]


def test_h84_no_renegotiation_and_the_callback_for_names_is_kept() -> None:
    def choose(tls: Any, name: str | None, context: ssl.SSLContext) -> int | None:
        asked.append(name)
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if name is None else None

    async def session() -> int:
        facts = await start_of(context)
        names.append(facts.sni)
        await Recv()
        return 0

    context = server_context()
    context.options &= ~ssl.OP_NO_RENEGOTIATION
    context.sni_callback = choose
    asked: list[str | None] = []
    names: list[str | None] = []
    for _ in range(3):  # prepared once, not once more for each connection
        inner = session()
        inner.send(None)
        client = Client(inner, context)
        client.shake()
        client.layer.close()
    assert asked == names == [NAME] * 3
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_nothing_is_left_for_the_garbage_collector() -> None:
    async def session() -> int:
        await start_of(context)
        for _ in range(3):
            try:
                await Recv()
            except DeadlineExceeded:
                pass
        return 0

    context = server_context()
    gc.collect()
    gc.disable()
    try:
        inner = session()
        inner.send(None)
        client = Client(inner, context)
        client.shake()
        for _ in range(2):
            client.operation = client.layer.throw(DeadlineExceeded())
        client.tls.write(b"x")
        with pytest.raises(StopIteration):
            client.exchange()
        del client, inner
        assert not [thing for thing in gc.get_objects() if isinstance(thing, ssl.SSLObject)]
    finally:
        gc.enable()


# The client's role


@pytest.mark.parametrize(
    ("name", "trusted", "error"),
    [(NAME, True, None), ("other.example.org", True, "ertificate"), (NAME, False, "ertificate")],
)
def test_h85_client_verifies_name_and_chain(name: str, trusted: bool, error: str | None, tmp_path: Path) -> None:
    async def session(connection: Connection) -> bytes:
        await Recv()
        await Send(b"starttls\r\n")
        await Recv()
        context = client_context() if trusted else ssl.create_default_context()
        facts = await StartTLS(context, False, name, connection.clock.monotonic() + 5)
        assert facts.sni is None
        assert facts.peer_certificate is not None
        await Send(b"echo a\r\n")
        output = await Recv()
        await Send(b"quit\r\n")
        while data := await Recv():
            output += data
        return output

    with Server("threads", write_pem(tmp_path)) as server:
        if error is None:
            assert blocking.run_client(session, "127.0.0.1", server.port) == b"a\r\n221 bye\r\n"
        else:
            with pytest.raises(TLSFailed, match=error):
                blocking.run_client(session, "127.0.0.1", server.port)


def test_drivers_do_not_import_ssl_before_it_is_needed() -> None:
    program = """
import sys
import mailfront_io.drivers.blocking, mailfront_io.drivers.forking, mailfront_io.drivers.oneshot, mailfront_io.testing
print("ssl" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env={"PYTHONPATH": "src"})
    assert done.stdout == b"False\n"
