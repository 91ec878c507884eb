"""Random sessions through our server machine and through Postfix's smtpd."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from mailfront_proto.smtp import DEFAULT
from tests.peers import differential
from tests.peers.differential import Difference, Ours, Step, check_example, compare, read_replies
from tests.peers.postfix_server import MESSAGE_LIMIT, Postfix, postfix
from tests.serving import SECONDS

pytestmark = pytest.mark.peer

# What is accepted is thrown away at once, and errors cost neither time nor the session.
EXTRA = """\
smtpd_client_restrictions = check_client_access static:DISCARD
smtpd_helo_required = yes
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1001
smtpd_junk_command_limit = 1000
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0s
"""
LIMITS = replace(
    DEFAULT.limits, message_size=MESSAGE_LIMIT, errors_in_row=None, errors=None, unknown_in_row=None, idle_commands=None
)
PROFILE = replace(DEFAULT, limits=LIMITS)

MAIL = [
    b"SIZE=10", b"SIZE=9999999", b"SIZE=x", b"SIZE=", b"SIZE", b"BODY=8BITMIME", b"BODY=7BIT", b"body=8bitmime",
    b"BODY=X", b"BODY", b"SMTPUTF8", b"SMTPUTF8=1", b"FOO=bar", b"FOO", b"RET=HDRS", b"RET=X", b"ENVID=a+2Bb",
    b"ENVID=+",
]  # fmt: skip
RCPT = [
    b"FOO=bar", b"NOTIFY=NEVER", b"NOTIFY=SUCCESS,FAILURE", b"NOTIFY=NEVER,SUCCESS", b"NOTIFY=X", b"ORCPT=rfc822;a@b.c",
    b"ORCPT=x", b"ORCPT=rfc822;a+4", b"notify=delay",
]  # fmt: skip
EHLO, MAIL_FROM, RCPT_TO = b"EHLO client.example", b"MAIL FROM:<a@a.example>", b"RCPT TO:<b@b.example>"

DIFFERENCES = [
    # Words
    Difference("success of nothing in particular is 2.3.0, the mail system's, or 2.0.0", rb"(NOOP|RSET).*", "250 2.3.0",
               "250 2.0.0", (EHLO, b"RSET")),
    Difference("a message that was taken is 2.6.0 or 2.0.0", rb"\.|BDAT .* LAST", "250 2.6.0", "250 2.0.0",
               (EHLO, MAIL_FROM, RCPT_TO, b"DATA")),
    Difference("an unknown command is invalid (5.5.1) or a matter of syntax (5.5.2)", rb".*", "500 5.5.1",
               "50[02] 5.5.[12]", (EHLO, b"XYZZY")),
    Difference("AUTH that cannot be had is unknown, not out of order", rb"AUTH.*", "500 5.5.1", "503 5.5.1",
               (EHLO, b"AUTH PLAIN AGEAYg==")),
    Difference("MAIL without a path is a bad path or a bad argument", rb"(MAIL|RCPT).*", "501 5.1.[37]", "501 5.5.4",
               (EHLO, b"MAIL FROM:")),
    Difference("DATA without a recipient is out of order, or there is none valid", rb"DATA.*|BDAT.*", "503 5.5.1",
               "554 5.5.1", (EHLO, MAIL_FROM, b"DATA")),
    Difference("a chunk out of order is that, or thrown away", rb"BDAT.*", "503 5.5.1", "551 5.[07].[01]",
               (EHLO, b"BDAT 0")),
    Difference("an empty chunk that is not the last one is abuse there", rb"BDAT 0", "250 2.0.0", "551 5.7.1",
               (EHLO, MAIL_FROM, RCPT_TO, b"BDAT 0")),
    # Commands
    Difference("it has no HELP", rb"HELP.*", "214 2.0.0", "500 5.5.2", (EHLO, b"HELP")),
    Difference("VRFY of nobody is as good as any: it is told nothing", rb"VRFY", "252 2.0.0", "501 5.5.4",
               (EHLO, b"VRFY")),
    Difference("it takes blanks in front of a command", rb" NOOP", "500 5.5.1", "250 2.0.0", (EHLO, b" NOOP")),
    Difference("commands with too many arguments are refused only where that may mean something",
               rb"(RSET|QUIT|NOOP) .*", "2(50 2.3.0|21 2.0.0)", "501 5.5.4", (EHLO, b"RSET x")),
    Difference("a host name has no blanks", rb"(EHLO|HELO) a b", "501 5.5.2", "250", (b"EHLO a b",)),
    Difference("a chunk without a size ends the session there: where it ends cannot be known", rb"BDAT.*",
               "50[13] 5.5.[14]", "521 5.5.4", (EHLO, b"BDAT x"), ends=True),
    # Order
    Difference("MAIL begins a transaction wherever it stands", rb"MAIL FROM:.*", "250 2.1.0", "503 5.5.1",
               (EHLO, MAIL_FROM, MAIL_FROM), after=rb"MAIL.*"),
    Difference("so what is wrong with it is looked at first", rb"MAIL.*", "5(01|52|53|55) .*", "503 5.5.1",
               (EHLO, MAIL_FROM, MAIL_FROM + b" BODY=X"), after=rb"MAIL.*"),
    Difference("and if it is refused there is no transaction", rb"(RCPT|DATA|BDAT).*", "503 5.5.1",
               "(250|354|501|55[135]).*", (EHLO, MAIL_FROM, b"MAIL FROM:<a@>", RCPT_TO), after=rb"MAIL.*"),
    Difference("the size of a message that was too big stays with it, and the next is too big, too", rb"MAIL.*",
               "(250|501|553|555) .*", "552 5.3.4", (EHLO, MAIL_FROM + b" SIZE=9999999", MAIL_FROM),
               after=rb"MAIL.*SIZE=9.*"),
    Difference("a chunk that was refused is as if it had not been; there only RSET or a new greeting helps",
               rb"(MAIL|RCPT).*", "(250|501|553|555) .*", "503 5.5.1", (EHLO, MAIL_FROM, b"BDAT 5", RCPT_TO),
               after=rb"BDAT.*"),
    # Addresses
    Difference("an address with nothing in front of its @, or two of them, is one there",
               rb"(MAIL|RCPT).*(<|a@)@a.example>.*", "501 5.1.[37]", "250 2.1.[05]", (EHLO, b"MAIL FROM:<@a.example>")),
    Difference("local parts are not counted there", rb"(MAIL|RCPT).*<a{65}@.*", "501 5.1.[37]", "250 2.1.[05]",
               (EHLO, b"MAIL FROM:<" + b"a" * 65 + b"@a.example>")),
    Difference("labels of domains have 63 octets there, and no hyphen in front", rb"(MAIL|RCPT).*@(a{64}|-a)\..*",
               "(250|501|55[25]) .*", "501 5.1.[37]", (EHLO, b"MAIL FROM:<a@" + b"a" * 64 + b".example>")),
    Difference("numbers alone are no domain there", rb"RCPT TO:<.*@[0-9.]+>.*", "(250|501|555) .*", "501 5.1.3",
               (EHLO, MAIL_FROM, b"RCPT TO:<b@0>")),
    Difference("a hyphen in front is refused there: the address might be taken for an option", rb"(MAIL|RCPT).*<-.*>.*",
               "(250|501|55[25]) .*", "501 5.1.[37]", (EHLO, MAIL_FROM, b"RCPT TO:<-b@b.example>")),
    Difference("the address is looked at first, then the parameters", rb"(MAIL|RCPT).* .*", "501 5.1.[37]|553 5.6.7",
               "501 5.5.4|555 5.5.4|552 5.3.4", (EHLO, "MAIL FROM:<\u00e4@a.example> FOO".encode())),
    Difference("it takes an address without its first bracket", rb"(MAIL FROM|RCPT TO):a@a.example>.*",
               "501 5.1.[37]", "250 2.1.[05]", (EHLO, b"MAIL FROM:a@a.example>")),
    Difference("it takes an address beyond ASCII without SMTPUTF8", rb"(MAIL|RCPT).*\xc3.*", "553 5.6.7",
               "250 2.1.[05]", (EHLO, "MAIL FROM:<\u00e4@a.example>".encode())),
    # Parameters
    Difference("a parameter stands once", rb"MAIL.*", "501 5.5.4", "250 2.1.0",
               (EHLO, MAIL_FROM + b" SIZE=10 SIZE=10")),
    Difference("syntax comes first, then what it says", rb"MAIL.* SIZE=9999999.*", "5(01|55) 5.5.4", "552 5.3.4",
               (EHLO, MAIL_FROM + b" SIZE=10 SIZE=9999999")),
    Difference("a known keyword with a bad value is not unknown", rb"MAIL.*", "501 5.5.4", "555 5.5.4",
               (EHLO, MAIL_FROM + b" SMTPUTF8=1")),
    Difference("after HELO there are no parameters", rb"(MAIL|RCPT).* .*", "555 5.5.4",
               "250 2.1.[05]|501 5.5.4|552 5.3.4",
               (b"HELO client.example", MAIL_FROM + b" BODY=8BITMIME"), after=rb"HELO.*"),
]  # fmt: skip


class Theirs:
    """A session with Postfix."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.say(b"", 1)

    def say(self, data: bytes, replies: int) -> list[str]:
        self._connection.sendall(data)
        output = b""
        while len(found := read_replies(output)) < replies:
            try:
                received = self._connection.recv(65536)
            except ConnectionResetError:  # it has closed, and some of what was said was not read
                break
            if not received:
                break
            output += received
        return found

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Postfix]:
    with postfix(EXTRA) as running:
        yield running


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.why)
def test_what_differs(difference: Difference, server: Postfix) -> None:
    theirs = Theirs(server.port)
    try:
        check_example(difference, Ours(PROFILE, ["DSN"]), theirs)
    finally:
        theirs.close()


def play(sessions: int, server: Postfix, derandomize: bool) -> int:
    """Play so many sessions; how many messages both have accepted."""
    accepted = 0

    @settings(max_examples=sessions, deadline=None, derandomize=derandomize, database=None)
    @given(session=differential.sessions(MAIL, RCPT, chunks=True))
    def run(session: list[Step]) -> None:
        nonlocal accepted
        ours, theirs = Ours(PROFILE, ["DSN"]), Theirs(server.port)
        try:
            for _ in compare(session, ours, theirs, DIFFERENCES):
                pass
        finally:
            theirs.close()
        accepted += len(ours.messages)

    run()
    return accepted


def test_sessions_that_are_the_same_each_time(server: Postfix) -> None:
    assert play(100, server, derandomize=True) > 20


@pytest.mark.long
def test_random_sessions(server: Postfix) -> None:
    play(3000, server, derandomize=False)
