"""The client session and a server's extensions: chunks on the wire, several transactions, several connections."""

import asyncio
import io
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from mailfront_io import client
from mailfront_io.client import (
    BodyType,
    LocalProtocolError,
    MailOptions,
    Notify,
    RecipientOptions,
    Return,
    SendResult,
    Stage,
    TLSPolicy,
)
from mailfront_io.frontends.client_settings import ClientSettings
from mailfront_io.frontends.outgoing import BLOCK
from mailfront_io.testing import EOF, STALL, Action, Advance, WaitFor
from mailfront_proto.smtp.client import CHUNK_SIZE
from tests import certificates
from tests.io.test_client import BODIES, BODY, CLEAR, FORMS, GREETING, QUIT, Talk, wire
from tests.serving import queue_directory, queued, serving


def ehlo(*capabilities: str) -> list[Action]:
    lines = "".join(f"250-{line}\r\n" for line in ("mx.example.org", "PIPELINING", "8BITMIME", *capabilities))
    return [GREETING, WaitFor(b"EHLO"), (lines + "250 ENHANCEDSTATUSCODES\r\n").encode()]


def envelope(recipients: int = 1) -> list[Action]:
    """An envelope that is taken."""
    return [WaitFor(b"MAIL"), *[WaitFor(b"RCPT")] * recipients, b"250 2.1.0 ok\r\n" * (1 + recipients)]


def message(recipients: int, answer: bytes = b"250 ok\r\n") -> list[Action]:
    """A message that is taken with DATA."""
    accepted = b"250 ok\r\n" * (recipients + 1) + b"354 go\r\n"
    return [WaitFor(b"DATA\r\n"), accepted, WaitFor(b"\r\n.\r\n"), answer]


CHUNKING = ehlo("CHUNKING")


def unstuffed(body: bytes) -> bytes:
    """`body` as it goes out in chunks."""
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b" ").split(b"\n")
    if not lines[-1]:
        del lines[-1]
    return b"".join(line + b"\r\n" for line in lines)


def chunks_of(output: bytes) -> list[bytes]:
    """The chunks in `output`, between the envelope and QUIT."""
    rest = output[output.index(b"BDAT ") :]
    chunks = []
    last = False
    while not last:
        line, _, rest = rest.partition(b"\r\n")
        words = line.split(b" ")
        assert words[0] == b"BDAT" and words[2:] in ([], [b"LAST"])
        last = words[2:] == [b"LAST"]
        chunks.append(rest[: int(words[1])])
        rest = rest[int(words[1]) :]
    assert rest == b"QUIT\r\n"
    return chunks


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("form", FORMS)
def test_the_body_arrives_in_chunks_as_it_is(form: str, body: bytes) -> None:
    expected = unstuffed(body)
    number = max(1, -(-len(expected) // CHUNK_SIZE))
    script: list[Action] = [*CHUNKING, *envelope()]
    for _ in range(number - 1):
        script += [WaitFor(b"BDAT"), b"250 2.0.0 more\r\n"]
    script += [WaitFor(b" LAST"), b"250 2.0.0 kept\r\n", *QUIT]
    talk = Talk(script, body=FORMS[form](body))
    assert talk.result.delivered and talk.replies == ["250 2.0.0 kept"]
    chunks = chunks_of(talk.played.output)
    assert b"".join(chunks) == expected and len(chunks) == number
    assert max(len(data) for _, data in talk.played.writes) <= 2 * BLOCK


def test_a_short_message_is_one_chunk_in_one_write() -> None:
    talk = Talk([*CHUNKING, *envelope(), WaitFor(b"LAST"), b"250 ok\r\n", *QUIT])
    assert [data for _, data in talk.played.writes][2] == b"BDAT 22 LAST\r\n" + BODY
    assert talk.said[-8:] == [
        "C: RCPT TO:<you@example.org>",
        *["S: 250 2.1.0 ok"] * 2,
        "C: BDAT 22 LAST",
        "*: the message, 22 bytes, and its last chunk",
        "S: 250 ok",
        *("C: QUIT", "S: 221 bye"),
    ]
    assert [step.name for step in talk.result.steps] == ["greeting", "EHLO", "MAIL", "RCPT", "message", ".", "QUIT"]


def test_chunks_are_not_in_the_transcript_but_their_commands_are() -> None:
    """Whatever they hold: lines that look like commands, too."""
    body = b"BDAT 5\r\nsecret\r\n" * 40_000
    script = [*CHUNKING, *envelope(), WaitFor(b"BDAT"), WaitFor(b"\r\nsecret"), b"250 ok\r\n" * 2]
    talk = Talk([*script, WaitFor(b" LAST"), b"250 ok\r\n", *QUIT], body=body)
    assert talk.result.delivered
    said = [line for line in talk.said if line.startswith("C: BDAT")]
    assert said == ["C: BDAT 262144", "C: BDAT 262144", "C: BDAT 115712 LAST"]
    assert not any("secret" in line for line in talk.said)


def test_data_where_it_is_asked_for() -> None:
    talk = Talk([*CHUNKING, *message(1), *QUIT], replace(CLEAR, chunking=False))
    assert talk.result.delivered
    assert wire(BODY) + b".\r\n" in talk.played.output


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_refused_chunk_ends_the_message_but_not_the_session(pipelining: bool) -> None:
    hello = CHUNKING if pipelining else [GREETING, WaitFor(b"EHLO"), b"250-x\r\n250 CHUNKING\r\n"]
    start = envelope() if pipelining else [WaitFor(b"MAIL"), b"250 ok\r\n", WaitFor(b"RCPT"), b"250 ok\r\n"]
    late = b"503 5.5.1 no\r\n" * 7 if pipelining else b""  # eight chunks may be on their way
    script = [*hello, *start, WaitFor(b"BDAT"), WaitFor(b"BDAT") if pipelining else WaitFor(b"x" * 1000)]
    talk = Talk([*script, b"552 5.3.4 Too big\r\n" + late, *QUIT], body=b"x" * 20_000_000, all_read=False)
    assert talk.replies == ["552 5.3.4 Too big"] and talk.stages == {Stage.MESSAGE}
    assert talk.played.output.count(b"BDAT ") == (8 if pipelining else 1)
    assert b"LAST" not in talk.played.output


@pytest.mark.parametrize("reply", ["421 4.3.2 Going down", "552 5.3.4 Too big"])
def test_last_words_in_the_midst_of_a_chunk(reply: str) -> None:
    script = [*CHUNKING, *envelope(), STALL, reply.encode() + b"\r\n", EOF]
    talk = Talk(script, body=b"x" * 1_000_000)
    assert talk.replies == [reply] and not talk.result.delivered


def test_the_deadline_of_a_chunk() -> None:
    talk = Talk([*CHUNKING, *envelope()], body=b"x" * 10_000_000)
    assert talk.replies == ["451 4.4.2 No answer to BDAT within 180 seconds"]
    assert talk.played.elapsed == pytest.approx(180)
    talk = Talk([*CHUNKING, *envelope()])
    assert talk.replies == ["451 4.4.2 No answer to the message within 600 seconds"]


def test_a_server_that_is_slow_with_every_chunk() -> None:
    script: list[Action] = [*CHUNKING, *envelope(), WaitFor(b"BDAT")]
    for _ in range(12):
        script += [Advance(100), b"250 ok\r\n"]
    talk = Talk([*script, WaitFor(b"LAST"), b"250 ok\r\n", *QUIT], body=b"x" * (CHUNK_SIZE * 12 + 5))
    assert talk.result.delivered and talk.played.elapsed == pytest.approx(1200)


@pytest.mark.parametrize("form", FORMS)
def test_8_bit_in_chunks_goes_to_nobody_without_8bitmime(form: str) -> None:
    body = b"Subject: x\r\n\r\n" + b"x" * 600_000 + b"\xe9"
    plain: list[Action] = [GREETING, WaitFor(b"EHLO"), b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n"]
    script = [*plain, *QUIT] if form in ("bytes", "file") else [*plain, *envelope()]
    talk = Talk(script, body=FORMS[form](body))
    assert talk.replies == ["554 5.6.3 The server does not take 8-bit messages"]
    assert b"\xe9" not in talk.played.output and b"LAST" not in talk.played.output


@pytest.mark.parametrize("form", FORMS)
def test_a_binary_message_is_not_touched(form: str) -> None:
    body = b"Content-Transfer-Encoding: binary\n\n" + bytes(range(256)) * 3000 + b"\r"
    settings = replace(CLEAR, mail_options=MailOptions(body=BodyType.BINARY_MIME))
    script: list[Action] = [*ehlo("CHUNKING", "BINARYMIME", "SIZE 0"), *envelope()]
    script += [WaitFor(b"BDAT"), b"250 ok\r\n", WaitFor(b"BDAT"), b"250 ok\r\n", WaitFor(b"LAST"), b"250 ok\r\n"]
    talk = Talk([*script, *QUIT], settings, body=FORMS[form](body))
    assert talk.result.delivered
    assert b"".join(chunks_of(talk.played.output)) == body
    size = b" SIZE=%d" % len(body) if form in ("bytes", "file") else b""
    assert b"MAIL FROM:<me@example.net>%s BODY=BINARYMIME\r\n" % size in talk.played.output
    talk = Talk([*CHUNKING, *QUIT], settings, body=FORMS[form](body))
    assert talk.replies == ["554 5.6.3 The server does not take binary messages"]


# -- what is not ASCII -----------------------------------------------------------------------------------------

UTF8 = "Subject: é\r\n\r\nHello.\r\n".encode()


@pytest.mark.parametrize("form", FORMS)
def test_a_header_that_is_not_ascii_needs_smtputf8(form: str) -> None:
    talk = Talk([*ehlo(), *QUIT], body=FORMS[form](UTF8))
    assert talk.replies == ["554 5.6.7 The server does not take headers that are not ASCII"]
    assert talk.stages == {Stage.LOCAL}
    data = [*message(1), *QUIT]
    talk = Talk([*ehlo("SMTPUTF8"), *data], body=FORMS[form](UTF8))
    assert b"<me@example.net> BODY=8BITMIME SMTPUTF8\r\n" in talk.played.output and UTF8 in talk.played.output
    lenient = replace(CLEAR, eight_bit_headers=True)
    talk = Talk([*ehlo(), *data], lenient, body=FORMS[form](UTF8))
    assert b"<me@example.net> BODY=8BITMIME\r\n" in talk.played.output and UTF8 in talk.played.output
    talk = Talk([*ehlo("SMTPUTF8"), *data], lenient, body=FORMS[form](UTF8))
    assert b"SMTPUTF8" in talk.played.output


def test_an_address_that_is_not_ascii_fails_alone() -> None:
    data = [*message(1), *QUIT]
    talk = Talk([*ehlo(), *data], to=["é@example.org", "you@example.org"])
    assert talk.replies == ["553 5.6.7 The server does not take non-ASCII addresses", "250 ok"]


def test_a_message_over_the_servers_limit() -> None:
    talk = Talk([*ehlo("SIZE 21"), *QUIT])
    assert talk.replies == ["552 5.3.4 The message is larger than the server takes"]
    assert b"MAIL" not in talk.played.output


# -- reports, REQUIRETLS ---------------------------------------------------------------------------------------


def test_reports() -> None:
    wishes = RecipientOptions(frozenset([Notify.SUCCESS]), ("rfc822", "old@example.org"))
    to: list[Any] = [("you@example.org", wishes), "them@example.org"]
    settings = replace(CLEAR, mail_options=MailOptions(ret=Return.FULL, envid="17"))
    talk = Talk([*ehlo("DSN"), *message(2), *QUIT], settings, to=to)
    assert b"<me@example.net> RET=FULL ENVID=17\r\n" in talk.played.output
    assert b"<you@example.org> NOTIFY=SUCCESS ORCPT=rfc822;old@example.org\r\nRCPT TO:<them" in talk.played.output
    assert [result.owes_report for result in talk.result.recipients] == [False, False]
    talk = Talk([*ehlo(), *message(2), *QUIT], settings, to=to)
    assert b"RET=" not in talk.played.output and b"NOTIFY=" not in talk.played.output
    assert [result.owes_report for result in talk.result.recipients] == [True, False]


def test_requiretls() -> None:
    asked = MailOptions(require_tls=True)
    context = certificates.client_context()
    talk = Talk([*ehlo("REQUIRETLS"), *QUIT], ClientSettings(tls_context=context, mail_options=asked))
    assert talk.replies == ["550 5.7.10 The message must travel over TLS, and there is none"]
    with pytest.raises(LocalProtocolError, match="REQUIRETLS without TLS"):
        ClientSettings(tls=TLSPolicy.NONE, mail_options=asked)
    unverified = client.client_context(verify=False)
    with pytest.raises(LocalProtocolError, match="takes any certificate: give one that verifies"):
        client.send_message("192.0.2.1", 25, "a@x", ["b@x"], b"", tls_context=unverified, mail_options=asked)
    any_name = ssl.create_default_context()
    any_name.check_hostname = False
    with pytest.raises(LocalProtocolError, match="takes any certificate"):
        client.send_message("192.0.2.1", 25, "a@x", ["b@x"], b"", tls_context=any_name, mail_options=asked)


# -- LIMITS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_server_that_takes_two_recipients_at_once_gets_several_transactions(form: str) -> None:
    to = [f"{n}@example.org" for n in range(5)]
    body = b"Subject: x\r\n\r\n" + b".\r\n" * 100_000
    script = [*ehlo("LIMITS RCPTMAX=2"), *message(2, b"250 one\r\n"), *message(2, b"450 two\r\n"), *message(1)]
    talk = Talk([*script, *QUIT], to=to, body=FORMS[form](body))
    assert talk.replies == ["250 one", "250 one", "450 two", "450 two", "250 ok"]
    output = talk.played.output
    assert output.count(wire(body) + b".\r\n") == 3 == output.count(b"MAIL FROM")
    assert [str(result.address) for result in talk.result.recipients] == to


def test_a_transaction_that_nobody_took_is_dropped_before_the_next() -> None:
    script = [*ehlo("LIMITS RCPTMAX=1"), WaitFor(b"DATA"), b"250 ok\r\n550 no\r\n503 no\r\n", WaitFor(b"RSET\r\n")]
    script += [b"250 ok\r\n", *message(1), *QUIT]
    talk = Talk(script, to=["a@x", "b@x"], body=io.BytesIO(BODY))
    assert talk.replies == ["550 no", "250 ok"]


@pytest.mark.parametrize("lost", [b"421 4.3.2 bye\r\n", b"nonsense\r\n", b""])
def test_a_connection_lost_between_transactions(lost: bytes) -> None:
    script = [*ehlo("LIMITS RCPTMAX=1"), *message(1), WaitFor(b"DATA"), b"250 ok\r\n", lost, EOF]
    talk = Talk([action for action in script if action != b""], to=["a@x", "b@x", "c@x"])
    assert [result.delivered for result in talk.result.recipients] == [True, False, False]
    assert all(result.reply.is_temporary for result in talk.result.recipients[1:])
    assert talk.replies[2] == "451 4.4.2 The connection was over before this recipient's turn"


def test_what_becomes_of_all_when_the_message_is_given_up() -> None:
    def pieces() -> Any:
        yield b"Subject: x\r\n\r\n" + b"x" * 200_000
        yield b"\xe9"

    plain: list[Action] = [GREETING, WaitFor(b"EHLO"), b"250-x\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=1\r\n"]
    talk = Talk([*plain, WaitFor(b"DATA"), b"250 ok\r\n250 ok\r\n354 go\r\n"], to=["a@x", "b@x"], body=pieces())
    assert talk.replies == ["554 5.6.3 The server does not take 8-bit messages"] * 2
    assert talk.stages == {Stage.LOCAL}


# -- several connections, through sockets ----------------------------------------------------------------------

Call = Callable[..., SendResult]


def with_asyncio(*arguments: Any, **options: Any) -> SendResult:
    return asyncio.run(client.send_message_asyncio(*arguments, **options))


def with_trio(*arguments: Any, **options: Any) -> SendResult:
    async def send() -> SendResult:
        return await client.send_message_trio(*arguments, **options)

    return trio.run(send)


every_call = pytest.mark.parametrize("call", [client.send_message, with_asyncio, with_trio])


class Refusing:
    """A server for several connections; each says its lines in turn, each when it has heard what is before it."""

    def __init__(self, *connections: Sequence[tuple[bytes, bytes]]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.port = self._listener.getsockname()[1]
        self.heard: list[bytes] = []
        self._connections = connections
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Refusing":
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        for script in self._connections:
            connection, _ = self._listener.accept()
            heard = b""
            with connection:
                connection.settimeout(10)
                for until, answer in script:
                    start = len(heard)
                    while until not in heard[start:]:
                        data = connection.recv(65536)
                        assert data, heard
                        heard += data
                    connection.sendall(answer)
            self.heard.append(heard)


def connection(code: bytes = b"250 kept\r\n", count: int = 1) -> list[tuple[bytes, bytes]]:
    script = [(b"", GREETING), (b"EHLO", b"250-x\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1 RCPTMAX=2\r\n")]
    script += [(b"DATA\r\n", b"250 ok\r\n" * (count + 1) + b"354 go\r\n"), (b"\r\n.\r\n", code)]
    return [*script, (b"QUIT\r\n", b"221 bye\r\n")]


@every_call
@pytest.mark.parametrize("form", FORMS)
def test_a_server_that_takes_one_message_a_session_gets_several(call: Call, form: str) -> None:
    to = [f"{n}@example.org" for n in range(5)]
    body = b"Subject: x\r\n\r\n" + b"x\r\n" * 100_000
    with Refusing(connection(count=2), connection(b"450 later\r\n", count=2), connection()) as server:
        result = call("127.0.0.1", server.port, "a@x", to, FORMS[form](body), tls=TLSPolicy.NONE)
    assert [str(r.reply) for r in result.recipients] == ["250 kept"] * 2 + ["450 later"] * 2 + ["250 kept"]
    assert all(body + b".\r\n" in heard for heard in server.heard)
    assert [step.name for step in result.steps].count("connect") == 3


@every_call
def test_when_the_second_connection_fails_what_became_of_the_first_is_told(call: Call) -> None:
    turned_away = [(b"", b"554 5.7.1 enough\r\n"), (b"QUIT\r\n", b"221 bye\r\n")]
    with Refusing(connection(count=2), turned_away) as server:
        result = call("127.0.0.1", server.port, "a@x", ["1@x", "2@x", "3@x"], BODY, tls=TLSPolicy.NONE)
    assert [str(r.reply) for r in result.recipients] == ["250 kept", "250 kept", "554 5.7.1 enough"]
    assert result.recipients[2].stage is Stage.CONNECTION
    with Refusing(connection(count=2), [(b"", b"")]) as server:
        result = call("127.0.0.1", server.port, "a@x", ["1@x", "2@x", "3@x"], BODY, tls=TLSPolicy.NONE)
    assert result.recipients[1].delivered and str(result.recipients[2].reply).startswith("451 4.4.2 127.0.0.1: ")


@every_call
def test_chunks_through_sockets(call: Call, tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    body = b"Subject: x\n\n" + b".\n..\nBDAT 5 LAST\n\xff\xfe" * 100_000
    with serving(tmp_path, "smtp", "queuedir", "accept", settings={"QUEUEDIR": queue}) as [(_, port)]:
        said: list[str] = []
        result = call("127.0.0.1", port, "a@x", ["b@x"], body, tls=TLSPolicy.NONE, transcript=said.append)
    assert result.delivered
    assert any(line.startswith("C: BDAT") and line.endswith("LAST") for line in said)
    assert queued(queue) == [("a@x", ["b@x"], body + b"\n")]
