"""Random sessions through our server machine and through aiosmtpd's; what both accept is compared byte for byte."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given, settings

from mailfront_proto.smtp import DEFAULT
from tests.peers import differential
from tests.peers.differential import Difference, Ours, Step, check_example, compare, read_replies

SIZE = 2000
LIMITS = replace(
    DEFAULT.limits, message_size=SIZE, errors_in_row=None, errors=None, unknown_in_row=None, idle_commands=None
)  # fmt: skip
PROFILE = replace(DEFAULT, limits=LIMITS)

MAIL = [
    b"SIZE=10", b"SIZE=99999", b"SIZE=x", b"SIZE=", b"SIZE", b"BODY=8BITMIME", b"BODY=7BIT", b"body=8bitmime",
    b"BODY=X", b"BODY", b"SMTPUTF8", b"SMTPUTF8=1", b"FOO=bar", b"FOO", b"SIZE=10",
]  # fmt: skip
RCPT = [b"FOO=bar", b"SIZE=10"]

EHLO, MAIL_FROM, RCPT_TO = b"EHLO client.example", b"MAIL FROM:<a@a.example>", b"RCPT TO:<b@b.example>"

DIFFERENCES = [
    # What one of them has, and the other has not
    Difference("it has no code of its own for HELP", rb"HELP.*", "214 2.0.0", "250", (b"HELP",)),
    Difference("commands with too many arguments are refused only where that may mean something",
               rb"(RSET|QUIT) x", "2(50 2.3.0|21 2.0.0)", "501", (EHLO, b"RSET x")),
    Difference("VRFY of nobody is as good as any: it is told nothing", rb"VRFY", "252 2.0.0", "501", (EHLO, b"VRFY")),
    Difference("lines may have 4,096 octets, not 512", rb"NOOP x{600}", "250 2.3.0", "500",
               (EHLO, b"NOOP " + b"x" * 600)),
    Difference("STARTTLS and AUTH are unknown where they cannot be had", rb"(STARTTLS|AUTH.*)", "500 5.5.1",
               "454|501|503|538 5.7.11", (EHLO, b"AUTH PLAIN AGEAYg==")),
    Difference("EXPN is unknown, not unimplemented", rb"EXPN .*", "500 5.5.1", "502", (EHLO, b"EXPN list")),
    Difference("it ends sessions with too many unknown commands, as we do elsewhere", rb".*", "500 5.5.1", "502 5.5.1",
               (b"X",) * 5, after=rb".*", ends=True),
    # Order
    Difference("MAIL begins a transaction wherever it stands", rb"MAIL FROM:.*", "250 2.1.0", "503",
               (EHLO, MAIL_FROM, MAIL_FROM), after=rb"MAIL.*"),
    Difference("so what is wrong with it is looked at first", rb"MAIL.*", "5(01|52|53|55) .*", "503",
               (EHLO, MAIL_FROM, MAIL_FROM + b" BODY=X"), after=rb"MAIL.*"),
    Difference("and if it is refused there is no transaction", rb"RCPT.*|DATA.*", "503 5.5.1",
               "250|354|50[01]|55[35].*", (EHLO, MAIL_FROM, b"MAIL FROM:<a@>", RCPT_TO), after=rb"MAIL.*"),
    # Addresses and host names
    Difference("a host name has no blanks", rb"(EHLO|HELO) a b", "501 5.5.2", "250", (b"EHLO a b",)),
    Difference("it does not close brackets and quotes, nor keep blanks and 8-bit addresses out, nor count local parts",
               rb"(MAIL|RCPT).*(<a|<a@a.example|\"a@a.example>|a b@.*|a{65}@.*|<|:)( .*)?", "5(01|52|55) .*", "250",
               (EHLO, b"MAIL FROM:<a b@a.example>")),
    Difference("it takes an address beyond ASCII without SMTPUTF8", rb"(MAIL|RCPT).*\xc3.*", "553 5.6.7", "250",
               (EHLO, "MAIL FROM:<\u00e4@a.example>".encode())),
    Difference("an address that is none is a matter of syntax", rb"(MAIL|RCPT).*", "501 5.1.[37]", "553 5.1.3",
               (EHLO, b"MAIL FROM:<a@>")),
    Difference("the address is looked at first, then the parameters", rb"(MAIL|RCPT).* .*", "501 5.1.[37]|553 5.6.7",
               "501|503|552|555", (EHLO, b"MAIL FROM:<a b@a.example> FOO")),
    Difference("a bracket with nothing behind it makes it raise IndexError", rb"(MAIL FROM|RCPT TO):<", "501 5.1.[37]",
               "500", (EHLO, b"MAIL FROM:<")),
    Difference("of two things that are wrong it names the other", rb"(MAIL|RCPT).* .*", "5(01|52|55) .*",
               "5(01|52|53|55)( .*)?", (EHLO, b"MAIL FROM:<a@> SIZE=99999 FOO")),
    # Parameters
    Difference("a parameter stands once", rb"MAIL.*", "501 5.5.4", "250", (EHLO, MAIL_FROM + b" SIZE=10 SIZE=10")),
    Difference("after HELO there are no parameters", rb"MAIL.* .*", "555 5.5.4", "501|250",
               (b"HELO client.example", MAIL_FROM + b" SIZE=10"), after=rb"HELO.*"),
]  # fmt: skip


class Handler:
    """Accepts everything."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content
        assert content is not None
        self.messages.append(content)
        return "250 OK"


class Aiosmtpd:
    """aiosmtpd on one end of a socket pair, its event loop run while an answer is awaited."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handler = Handler()
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        loop.run_until_complete(loop.connect_accepted_socket(self._new, theirs))
        self.say(b"", 1)

    def _new(self) -> SMTP:
        return SMTP(
            self._handler, data_size_limit=SIZE, enable_SMTPUTF8=True, hostname="mx.example.org",
            command_call_limit=1000, loop=self._loop,
        )  # fmt: skip

    @property
    def messages(self) -> list[bytes]:
        return self._handler.messages

    def say(self, data: bytes, replies: int) -> list[str]:
        return self._loop.run_until_complete(self._say(data, replies))

    async def _say(self, data: bytes, replies: int) -> list[str]:
        await self._loop.sock_sendall(self._ours, data)
        output = b""
        while len(found := read_replies(output)) < replies:
            async with asyncio.timeout(20):
                received = await self._loop.sock_recv(self._ours, 65536)
            if not received:
                break
            output += received
        return found

    def close(self) -> None:
        self._ours.close()
        self._loop.run_until_complete(_end_of_all_tasks())


async def _end_of_all_tasks() -> None:
    """The end of the session's, and of what it closes then."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    await asyncio.sleep(0)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.why)
def test_what_differs(difference: Difference, loop: asyncio.AbstractEventLoop) -> None:
    theirs = Aiosmtpd(loop)
    try:
        check_example(difference, Ours(PROFILE), theirs)
    finally:
        theirs.close()


def play(sessions: int, loop: asyncio.AbstractEventLoop, derandomize: bool) -> int:
    """Play so many sessions; how many messages both have accepted, byte for byte the same."""
    accepted = 0

    @settings(max_examples=sessions, deadline=None, derandomize=derandomize, database=None)
    @given(session=differential.sessions(MAIL, RCPT))
    def run(session: list[Step]) -> None:
        nonlocal accepted
        ours, theirs = Ours(PROFILE), Aiosmtpd(loop)
        try:
            for _ in compare(session, ours, theirs, DIFFERENCES):
                pass
        finally:
            theirs.close()
        assert ours.messages == theirs.messages
        accepted += len(ours.messages)

    run()
    return accepted


def test_sessions_that_are_the_same_each_time(loop: asyncio.AbstractEventLoop) -> None:
    assert play(300, loop, derandomize=True) > 50


@pytest.mark.long
def test_random_sessions(loop: asyncio.AbstractEventLoop) -> None:
    play(10_000, loop, derandomize=False)
