"""SMTP extensions through the front end: what is offered, what plugins and backends get, XCLIENT from listed peers,
messages in chunks, the forms of messages, deadlines."""

from collections.abc import Iterable

import pytest

from mailfront_io.auth.static import StaticStore
from mailfront_io.plugin import Backend, Command, Lines, Parameter, Plugin, Response
from mailfront_io.service import Service
from mailfront_io.session import ForwardPath, ReversePath
from mailfront_io.settings import ConfigurationError
from mailfront_io.spool import Spool
from mailfront_io.testing import Action, Advance, PeerTLS, WaitFor
from mailfront_proto.secret import Secret
from mailfront_proto.smtp import BodyType, MailOptions, Notify, RecipientOptions, Return
from tests.certificates import client_context, server_context
from tests.front import ENVELOPE, Front, Kept, codes

HELO = b"EHLO x\r\n"
BDAT = b"BDAT 5\r\none\r\nBDAT 4 LAST\r\n..2\n"


def offered(output: bytes) -> list[str]:
    """The capability lines of the last EHLO."""
    lines = output.decode().split("\r\n")
    begin = max(n for n, line in enumerate(lines) if line == "250-mx.example.org")
    end = next(n for n, line in enumerate(lines) if n > begin and line[3:4] == " ")
    return [line[4:] for line in lines[begin + 1 : end + 1]]


class Promising(Kept):
    """Keeps everything, octet by octet, with what came of the parameters."""

    lines = Lines.CRLF
    extensions = frozenset(("DSN", "REQUIRETLS", "BINARYMIME"))
    envelopes: list[tuple[MailOptions, list[RecipientOptions]]]

    def message_end(self, spool: Spool | None) -> None:
        super().message_end(spool)
        envelope = self.session.envelope
        assert envelope.sender is not None
        self.envelopes.append((envelope.sender.options, [path.options for path in envelope.recipients]))


def promising() -> type[Promising]:
    return type("Kept", (Promising,), {"messages": [], "envelopes": []})


# -- messages in chunks ----------------------------------------------------------------------------------


def test_a_message_in_chunks_is_a_message() -> None:
    front = Front("accept", "counters")
    output = front.say(ENVELOPE + BDAT + b"QUIT\r\n")
    assert codes(output) == [220, 250, 250, 250, 250, 250, 221]
    assert front.messages == [("a@example.net", ["b@example.org"], b"one\n..2\n")]


def test_counters_count_chunks() -> None:
    front = Front("accept", "counters", env={"DATABYTES": "8", "MAXMSGS": "2"})
    output = front.say(ENVELOPE + BDAT + ENVELOPE + b"BDAT 5\r\none\r\nBDAT 3 LAST\r\n123" + ENVELOPE + BDAT + ENVELOPE)
    assert codes(output)[4:6] == [250, 552]
    assert codes(output)[9:11] == [250, 250]
    assert [body for _, _, body in front.messages] == [b"one\n123"]


def test_what_refuses_a_message_at_its_start_refuses_its_chunks() -> None:
    class Full(Plugin):
        def data_start(self, spool: Spool | None) -> Response:
            return Response(452, "4.3.1 Full")

    front = Front(Full, "accept")
    output = front.say(ENVELOPE + b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    assert codes(output)[4:] == [452, 503, 250]
    assert front.messages == []


def test_a_message_that_breaks_off_between_chunks_is_none() -> None:
    endings = [b"", b"QUIT\r\n", b"RSET\r\n", b"MAIL FROM:<c@d.example>\r\n", HELO, b"BDAT x\r\n", b"BDAT 5 LAST\r\n1"]
    for ending in endings:
        front = Front("accept")
        front.say(ENVELOPE + b"BDAT 3\r\nabc" + ending)
        assert front.messages == []
        dropped = "Connection dropped" in front.log
        assert dropped == (ending in (b"", b"BDAT 5 LAST\r\n1"))


def test_lmtp_answers_the_last_chunk_for_each_recipient() -> None:
    front = Front("accept", protocol="lmtp")
    output = front.say(b"L" + ENVELOPE[1:] + b"RCPT TO:<c@example.org>\r\n" + BDAT)
    assert codes(output)[4:] == [250, 250, 250, 250]


@pytest.mark.parametrize("wait", ["in a chunk", "between chunks", "in a refused chunk"])
def test_h20_a_client_that_stops(wait: str) -> None:
    front = Front("accept")
    before = {"in a chunk": ENVELOPE + b"BDAT 5\r\nab", "between chunks": ENVELOPE + b"BDAT 2\r\nab"}
    played = front.play([before.get(wait, b"BDAT 5\r\nab"), Advance(1000)], all_read=False)
    assert played.output.endswith(b"421 4.4.2 Timed out, closing connection\r\n")
    assert played.elapsed == {"in a chunk": 180, "between chunks": 300, "in a refused chunk": 300}[wait]


def test_h20_a_message_in_drips_has_an_end() -> None:
    """An octet a chunk, and every chunk in time."""
    drips: list[Action] = [b"BDAT 1\r\nx", Advance(100)]
    script: list[Action] = [ENVELOPE, *drips * 20]
    played = Front("accept").play(script, all_read=False)
    assert played.output.endswith(b"421 4.4.2 Timed out, closing connection\r\n")
    assert 600 <= played.elapsed <= 610


# -- what is offered, and given on -----------------------------------------------------------------------


def test_a_backend_that_promises_nothing() -> None:
    assert offered(Front("accept").say(HELO)) == [
        "SIZE 52428800", "8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES", "LIMITS RCPTMAX=1000", "PIPELINING", "SMTPUTF8"
    ]  # fmt: skip


def test_what_a_backend_promises_is_offered() -> None:
    front = Front("accept", backend=promising())
    assert {"BINARYMIME", "DSN"} <= set(offered(front.say(HELO)))
    assert "REQUIRETLS" not in offered(front.say(HELO))
    script: list[Action] = [
        HELO + b"STARTTLS\r\n", WaitFor(b"220 2.0.0"), PeerTLS(client_context(), "mx.example.org"), HELO + b"QUIT\r\n"
    ]  # fmt: skip
    inside = Front("accept", backend=promising(), tls=server_context()).play(script, all_read=False).output
    assert "REQUIRETLS" in offered(inside)


def test_binarymime_needs_a_backend_with_crlf() -> None:
    class Files(Kept):
        extensions = frozenset(("BINARYMIME", "DSN"))

    capabilities = offered(Front("accept", backend=Files).say(HELO))
    assert "DSN" in capabilities and "BINARYMIME" not in capabilities


def test_compat_offers_nothing_new() -> None:
    environment = {"MAILFRONT_PROFILE": "compat", "MAXRCPTS": "5", "MAXMSGS": "6"}
    front = Front("accept", "counters", backend=promising(), env=environment)
    assert offered(front.say(HELO)) == ["SIZE 0", "8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING"]
    assert codes(front.say(HELO + b"BDAT 6\r\nNOOP\r\n"))[2:] == [500, 250]


def test_extensions_can_be_discarded() -> None:
    front = Front("accept", backend=promising(), env={"EHLO_DISCARD": "chunking:DSN:Size:"})
    output = front.say(ENVELOPE.replace(b"net>", b"net> RET=FULL") + b"BDAT 6\r\nNOOP\r\n")
    assert offered(output) == ["8BITMIME", "ENHANCEDSTATUSCODES", "LIMITS RCPTMAX=1000", "PIPELINING", "SMTPUTF8"]
    assert codes(output)[2:] == [555, 503, 500, 250]


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("EHLO_DISCARD", "CHUNKING:STARTTLS", "STARTTLS is none of 8BITMIME"),
        ("XCLIENT_HOSTS", "192.0.2.1,all", "'all' does not appear to be an IPv4 or IPv6 network.*write addresses"),
        ("XCLIENT_HOSTS", "192.0.2.1/8", "has host bits set"),
    ],
)
def test_settings_that_cannot_be(name: str, value: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"\${name}: .*{hint}"):
        Service("smtp", "discard", [], {name: value}, print)


def test_limits_of_counters_are_told() -> None:
    def limits(**environment: str) -> list[str]:
        return [line for line in offered(Front("accept", "counters", env=environment).say(HELO)) if "LIMITS" in line]

    assert limits() == ["LIMITS RCPTMAX=1000"]
    assert limits(MAXRCPTS="5") == ["LIMITS RCPTMAX=5"]
    assert limits(MAXRCPTS="5000", MAXMSGS="6") == ["LIMITS RCPTMAX=1000 MAILMAX=6"]
    assert limits(MAXMSGS="5000000") == ["LIMITS RCPTMAX=1000"]
    assert limits(MAXMSGS="5", EHLO_DISCARD="LIMITS") == []


def test_plugins_and_backends_get_values() -> None:
    seen: list[object] = []

    class Looks(Plugin):
        def sender(self, path: ReversePath) -> None:
            seen.append(path.options)

        def recipient(self, path: ForwardPath) -> None:
            seen.append(path.options)

    backend = promising()
    front = Front(Looks, "accept", backend=backend)
    output = front.say(
        HELO + b"MAIL FROM:<a@example.net> BODY=BINARYMIME RET=HDRS ENVID=A+20B AUTH=<>\r\n"
        b"MAIL FROM:<a@example.net> BODY=BINARYMIME RET=HDRS ENVID=A+20B\r\n"
        b"RCPT TO:<b@example.org> NOTIFY=SUCCESS\r\nRCPT TO:<c@example.org>\r\nBDAT 1 LAST\r\nx"
    )
    assert codes(output)[2:] == [555, 250, 250, 250, 250]
    mail = MailOptions(body=BodyType.BINARY_MIME, ret=Return.HEADERS, envid="A B")
    recipients = [RecipientOptions(frozenset({Notify.SUCCESS})), RecipientOptions()]
    assert seen == [mail, *recipients]
    assert backend.envelopes == [(mail, recipients)]


def test_parameters_of_a_plugin() -> None:
    class Priority(Plugin):
        def parameters(self) -> Iterable[Parameter]:
            yield Parameter("MAIL", "MT-PRIORITY", lambda v: v in ("0", "1"), capability="MT-PRIORITY")

        def helo(self, host: str, capabilities: list[str]) -> None:
            capabilities.append("MT-PRIORITY")

        def sender(self, path: ReversePath) -> Response:
            return Response(250, f"2.1.0 {path.options.others}")

    output = Front(Priority, "accept").say(
        HELO + b"MAIL FROM:<a@b.example> mt-priority=1\r\nMAIL FROM:<a@b.example> MT-PRIORITY=2\r\n"
        b"HELO x\r\nMAIL FROM:<a@b.example> MT-PRIORITY=1\r\n"
    )
    assert codes(output)[2:] == [250, 501, 250, 555]
    assert b"250 2.1.0 (('MT-PRIORITY', '1'),)\r\n" in output


@pytest.mark.parametrize("bad", [("DATA", "X"), ("MAIL", "X Y"), ("RCPT", "")])
def test_parameters_that_are_none(bad: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="a parameter is of MAIL or RCPT"):
        Parameter(*bad)


def test_a_plugin_whose_parameters_fail_costs_a_log_line() -> None:
    class Broken(Plugin):
        def parameters(self) -> Iterable[Parameter]:
            raise RuntimeError("no")

    front = Front(Broken, "accept")
    assert codes(front.say(HELO)) == [220, 250]
    assert any("RuntimeError" in line for line in front.log)


# -- forms of a message ----------------------------------------------------------------------------------


class Sees(Plugin):
    """Adds a line, and keeps what it sees."""

    seen: list[bytes]

    def data_start(self, spool: Spool | None) -> None:
        self.session.add_lines(b"X-Seen: yes\n")

    def data_block(self, data: bytes) -> None:
        self.seen.append(data)


def test_a_backend_with_crlf_gets_the_wire_form() -> None:
    sees: type[Sees] = type("Sees", (Sees,), {"seen": []})
    backend = promising()
    front = Front(sees, "force-file", "accept", backend=backend)
    front.say(ENVELOPE + b"DATA\r\n..a\r\nb\nc\r\n.\r\n" + ENVELOPE + BDAT)
    assert [body for _, _, body in backend.messages] == [
        b"X-Seen: yes\r\n.a\r\nb\r\nc\r\n", b"X-Seen: yes\r\none\r\n..2\r\n"
    ]  # fmt: skip
    assert b"".join(sees.seen) == b".a\nb\nc\none\n..2\n"


def test_a_binary_message_stays_what_it_is() -> None:
    backend = promising()
    front = Front("accept", backend=backend, env={"BARE_LINE_ENDS": "reject"})
    content = b"\x00\n\r\xff\r\n.\n"
    mail = ENVELOPE.replace(b"net>", b"net> BODY=BINARYMIME")
    output = front.say(mail + b"BDAT 2\r\n" + content[:2] + b"BDAT %d LAST\r\n" % len(content[2:]) + content[2:])
    assert codes(output)[4:] == [250, 250]
    assert backend.messages == [("a@example.net", ["b@example.org"], content)]
    assert codes(front.say(mail + b"DATA\r\n"))[4:] == [503]


# -- the trace line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "protocol", "expected"),
    [(b"", "smtp", "ESMTPA"), (b" SMTPUTF8", "smtp", "UTF8SMTPA"), (b" SMTPUTF8", "lmtp", "UTF8LMTPA")],
)
def test_the_trace_line_tells_of_smtputf8(parameter: bytes, protocol: str, expected: str) -> None:
    """RFC 6531 section 4.3."""
    store = StaticStore({"joe": Secret(b"secret")})
    front = Front(
        "authenticate", "add-received", "accept",
        protocol=protocol, credentials=store, env={"AUTH_REQUIRES_TLS": "0"},
    )  # fmt: skip
    hello = b"LHLO x\r\n" if protocol == "lmtp" else HELO
    envelope = ENVELOPE.partition(b"\r\n")[2].replace(b"net>", b"net>" + parameter)
    front.say(hello + b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n" + envelope + BDAT)
    assert f"\n  with {expected} via TCP; ".encode() in front.messages[0][2]


# -- XCLIENT ---------------------------------------------------------------------------------------------

PROXY = {"XCLIENT_HOSTS": "198.51.100.0/25, 2001:db8::/32"}


class Who(Plugin):
    """Shows who the client is, and turns one away."""

    def connect(self) -> Response | None:
        return Response(554, "5.7.1 Not you") if self.session.remote_ip == "203.0.113.66" else None

    def commands(self) -> list[Command]:
        return [Command("XWHO", self.show)]

    def show(self, argument: str) -> Response:
        session = self.session
        facts = (session.remote_host, session.remote_ip, session.local_ip, session.strings.get("helo_domain"))
        return Response(250, f"2.0.0 {facts} {session.strings.get('auth_user')} {session.getenv('TCPREMOTEPORT')}")


def test_h70_xclient_is_for_listed_peers_alone() -> None:
    for ip, known in (
        ("198.51.100.7", True), ("198.51.100.200", False), ("::ffff:198.51.100.7", True), ("2001:db8::1", True),
        ("2001:db9::1", False), ("nonsense", False), ("", False),
    ):  # fmt: skip
        front = Front(Who, "accept", env=PROXY | {"TCPREMOTEIP": ip})
        output = front.say(HELO + b"XCLIENT ADDR=192.0.2.9\r\n")
        assert any("XCLIENT" in line for line in offered(output)) == known
        assert codes(output)[2] == (220 if known else 500)
    assert codes(Front(Who, "accept").say(HELO + b"XCLIENT ADDR=192.0.2.9\r\n"))[2] == 500


def test_h70_xclient_resets_the_session() -> None:
    front = Front(Who, "accept", "add-received", env=PROXY)
    output = front.say(
        b"EHLO proxy\r\nXWHO\r\nXCLIENT NAME=c.example ADDR=203.0.113.5 PORT=4711 HELO=said DESTADDR=203.0.113.1\r\n"
        b"XWHO\r\nMAIL FROM:<a@b.example>\r\n" + ENVELOPE + BDAT
    )
    assert codes(output) == [220, 250, 250, 220, 250, 503, 250, 250, 250, 250, 250]
    assert b"250 2.0.0 ('client.example.net', '198.51.100.7', '192.0.2.1', 'proxy') None None\r\n" in output
    assert b"250 2.0.0 ('c.example', '203.0.113.5', '203.0.113.1', 'said') None 4711\r\n" in output
    trace = b"Received: from said (c.example [203.0.113.5])\n  by mx.example.org ([203.0.113.1])\n"
    assert trace in front.messages[0][2]
    assert "XCLIENT c.example [203.0.113.5]" in front.log


def test_h70_what_is_not_said_of_another_client_is_unknown() -> None:
    output = Front(Who, "accept", env=PROXY).say(
        b"XCLIENT ADDR=IPV6:2001:db8::9\r\nXWHO\r\nXCLIENT NAME=[UNAVAILABLE] LOGIN=joe\r\nXWHO\r\n"
        b"XCLIENT PROTO=SMTP\r\nXWHO\r\n"
    )
    assert output.count(b"220 ") == 4
    assert [line for line in output.decode().split("\r\n") if line.startswith("250 2.0.0 (")] == [
        "250 2.0.0 (None, '2001:db8::9', '192.0.2.1', None) None None",
        "250 2.0.0 (None, '2001:db8::9', '192.0.2.1', None) joe None",
        "250 2.0.0 (None, '2001:db8::9', '192.0.2.1', None) None None",
    ]


def test_h70_plugins_can_turn_the_other_client_away() -> None:
    front = Front(Who, "accept", env=PROXY)
    output = front.say(HELO + b"XCLIENT ADDR=203.0.113.66\r\nEHLO x\r\n")
    assert codes(output) == [220, 250, 554]
    assert output.endswith(b"554 5.7.1 Not you\r\n")


def test_h70_a_login_is_forgotten_and_another_taken() -> None:
    store = StaticStore({"joe": Secret(b"secret")})
    front = Front(
        Who, "authenticate", "require-auth", "accept", credentials=store, env=PROXY | {"AUTH_REQUIRES_TLS": "0"}
    )
    login = b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"
    mail = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRSET\r\n"
    output = front.say(
        HELO + login + mail + b"XCLIENT ADDR=203.0.113.5\r\n" + mail + b"XCLIENT LOGIN=ann\r\n" + mail + b"XWHO\r\n"
    )
    assert codes(output) == [220, 250, 235, 250, 250, 250, 220, 250, 530, 250, 220, 250, 250, 250, 250]
    assert b" ann " in output


def test_h70_what_the_proxy_may_its_client_may_not() -> None:
    """``$RELAYCLIENT`` comes from a rule for the proxy's address."""
    front = Front("accept-sender", "relayclient", env=PROXY | {"RELAYCLIENT": ""})
    mail = HELO + b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRSET\r\n"
    output = front.say(mail + b"XCLIENT ADDR=203.0.113.5\r\n" + mail)
    assert codes(output) == [220, 250, 250, 250, 250, 220, 250, 250, 550, 250]


def test_no_backend_promises_by_itself() -> None:
    assert Backend.extensions == frozenset() and Backend.lines is Lines.LF
