"""What the client machine makes of a server's extensions: what is sent, what is left out, what is refused here."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.capabilities import Capabilities
from mailfront_proto.smtp.client import EnvelopeRecipient, SMTPClient
from mailfront_proto.smtp.client_events import Greeting, MessageDone, ReadyForBody, RecipientResult, Stage
from mailfront_proto.smtp.client_limits import LimitsUse
from mailfront_proto.smtp.events import Unavailable, Xclient
from mailfront_proto.smtp.parameters import BodyType, MailOptions, Notify, RecipientOptions, Return
from mailfront_proto.smtp.reply_reader import MAX_KEPT
from mailfront_proto.smtp.states import State
from mailfront_proto.smtp.xclient import XCLIENT_ATTRIBUTES, parse_xclient
from tests.proto.client_script import Script, play_every_way
from tests.proto.test_client import (
    BROKEN,
    CLOSED,
    GO,
    HELLO,
    NO,
    OK,
    PLAIN_OLD,
    QUIT,
    answer,
    at_ready,
    plain,
    show_next,
    steps,
)

EIGHT_BIT = MailOptions(body=BodyType.EIGHT_BIT_MIME)


def hello(*capabilities: str) -> bytes:
    """An answer to EHLO."""
    lines = ["mx.example", *capabilities]
    return b"".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n".encode() for line in lines)


def mail_line(options: MailOptions, *capabilities: str, in_tls: bool = False, to: str = "c@d") -> str:
    """What follows ``MAIL FROM:<a@b>`` in a message with `options`; or the fate of its recipient."""
    client = at_ready(hello("PIPELINING", *capabilities))
    client.in_tls = in_tls
    client.send_message("a@b", [to], options)
    sent = client.data_to_send()
    if not sent:
        event = client.next_event()
        assert isinstance(event, MessageDone)
        [result] = event.results
        assert result.stage is Stage.LOCAL and not result.delivered
        return str(result.reply)
    line = sent.decode().partition("\r\n")[0]
    assert line.startswith("MAIL FROM:<a@b>")
    return line.removeprefix("MAIL FROM:<a@b>")


ALL = MailOptions(
    size=100,
    body=BodyType.EIGHT_BIT_MIME,
    smtputf8=True,
    auth="é@b",
    ret=Return.FULL,
    envid="a b",
    require_tls=True,
    others=(("X-ONE", None), ("X-TWO", "2")),
)


@pytest.mark.parametrize(
    ("options", "capabilities", "in_tls", "expected"),
    [
        (ALL, "SIZE,8BITMIME,SMTPUTF8,AUTH,DSN,REQUIRETLS", True,
         " SIZE=100 BODY=8BITMIME SMTPUTF8 AUTH=+C3+A9@b RET=FULL ENVID=a+20b REQUIRETLS X-ONE X-TWO=2"),
        (ALL, "8BITMIME,SMTPUTF8,REQUIRETLS", True, " BODY=8BITMIME SMTPUTF8 REQUIRETLS X-ONE X-TWO=2"),
        (ALL, "8BITMIME,SMTPUTF8,REQUIRETLS", False, "550 5.7.10 The message must travel over TLS, and there is none"),
        (ALL, "8BITMIME,SMTPUTF8", True, "550 5.7.30 The server does not offer REQUIRETLS"),
        (ALL, "SMTPUTF8,REQUIRETLS", True, "554 5.6.3 The server does not take 8-bit messages"),
        (ALL, "8BITMIME,REQUIRETLS", True, "554 5.6.7 The server does not take headers that are not ASCII"),
        (MailOptions(), "SIZE,8BITMIME,SMTPUTF8,AUTH,DSN,REQUIRETLS", True, ""),
        (MailOptions(body=BodyType.SEVEN_BIT), "8BITMIME", False, ""),
        (MailOptions(body=BodyType.BINARY_MIME), "CHUNKING,BINARYMIME", False, " BODY=BINARYMIME"),
        (MailOptions(body=BodyType.BINARY_MIME), "CHUNKING,8BITMIME", False,
         "554 5.6.3 The server does not take binary messages"),
        (MailOptions(body=BodyType.BINARY_MIME), "BINARYMIME", False,
         "554 5.6.3 The server does not take binary messages"),
        (MailOptions(size=1000), "SIZE 1000", False, " SIZE=1000"),
        (MailOptions(size=1001), "SIZE 1000", False, "552 5.3.4 The message is larger than the server takes"),
        (MailOptions(size=1001), "SIZE 0", False, " SIZE=1001"),
        (MailOptions(size=0), "SIZE", False, " SIZE=0"),
        (MailOptions(auth="<>"), "AUTH PLAIN", False, " AUTH=<>"),
    ],
)  # fmt: skip
def test_what_goes_out_and_what_is_left_out(
    options: MailOptions, capabilities: str, in_tls: bool, expected: str
) -> None:
    assert mail_line(options, *capabilities.split(","), in_tls=in_tls) == expected


flags = st.booleans()
OFFERS = ("SIZE 500", "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8", "AUTH PLAIN", "DSN", "REQUIRETLS")


@given(
    st.sets(st.sampled_from(OFFERS)),
    st.builds(
        MailOptions,
        size=st.none() | st.integers(0, 1000),
        body=st.none() | st.sampled_from(BodyType),
        smtputf8=flags,
        auth=st.none() | st.sampled_from(["<>", "x@y"]),
        ret=st.none() | st.sampled_from(Return),
        envid=st.none() | st.just("17"),
        require_tls=flags,
    ),
    flags,
)
def test_nothing_goes_out_that_is_not_offered(offers: set[str], options: MailOptions, in_tls: bool) -> None:
    """What was sent is read as our server reads it, which knows what it has offered; and what the message needs is
    among it, or nothing was sent."""
    said = mail_line(options, *sorted(offers), in_tls=in_tls)
    offered = {line.split()[0] for line in offers}
    lacking = (
        (options.require_tls and not (in_tls and "REQUIRETLS" in offered))
        or (options.body is BodyType.EIGHT_BIT_MIME and "8BITMIME" not in offered)
        or (options.body is BodyType.BINARY_MIME and not {"BINARYMIME", "CHUNKING"} <= offered)
        or (options.smtputf8 and "SMTPUTF8" not in offered)
        or (options.size is not None and options.size > 500 and "SIZE 500" in offers)
    )
    if lacking:
        assert said[:2] == "55"
        return
    read = MailOptions.parse(said.split(), offered)
    assert (read.smtputf8, read.require_tls) == (options.smtputf8, options.require_tls)
    assert read.body is (None if options.body is BodyType.SEVEN_BIT else options.body)
    assert read.size == (options.size if "SIZE" in offered else None)
    assert read.auth == (options.auth if "AUTH" in offered else None)
    assert (read.ret, read.envid) == ((options.ret, options.envid) if "DSN" in offered else (None, None))


def test_a_sender_or_a_recipient_that_is_not_ascii() -> None:
    assert mail_line(MailOptions(), "SMTPUTF8", to="é@d") == " SMTPUTF8"
    assert mail_line(MailOptions(), to="é@d") == "553 5.6.7 The server does not take non-ASCII addresses"
    client = at_ready(hello("PIPELINING"))
    client.send_message("é@b", ["c@d", "e@f"])
    assert show_next(client) == "done local:553 local:553"


# -- reports (RFC 3461) --------------------------------------------------------------------------------------

SUCCESS = RecipientOptions(frozenset([Notify.SUCCESS, Notify.FAILURE]), ("rfc822", "x@y"))
NEVER = RecipientOptions(frozenset([Notify.NEVER]))


def results(
    capabilities: bytes, recipients: list[EnvelopeRecipient], answers: bytes
) -> tuple[bytes, list[RecipientResult]]:
    client = at_ready(capabilities)
    client.send_message("a@b", recipients, MailOptions(ret=Return.HEADERS))
    envelope = client.data_to_send()
    client.receive_data(answers)
    while not isinstance(event := client.next_event(), MessageDone):
        if isinstance(event, ReadyForBody):
            client.end_of_body()
            client.receive_data(OK)
    return envelope, list(event.results)


def test_reports_are_asked_for_where_they_are_offered() -> None:
    to: list[EnvelopeRecipient] = [("c@d", SUCCESS), ("e@f", NEVER), "g@h"]
    envelope, found = results(hello("PIPELINING", "DSN"), to, OK * 4 + GO)
    assert envelope == (
        b"MAIL FROM:<a@b> RET=HDRS\r\nRCPT TO:<c@d> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x@y\r\n"
        b"RCPT TO:<e@f> NOTIFY=NEVER\r\nRCPT TO:<g@h>\r\nDATA\r\n"
    )
    assert [result.owes_report for result in found] == [False, False, False]


def test_without_dsn_a_report_of_success_is_owed() -> None:
    """RFC 3461 section 5.2.2 (a) and (b)."""
    to: list[EnvelopeRecipient] = [("c@d", SUCCESS), ("e@f", NEVER), "g@h", ("i@j", SUCCESS)]
    envelope, found = results(hello("PIPELINING"), to, OK * 4 + NO + GO)
    recipients = b"".join(b"RCPT TO:<%s>\r\n" % address for address in (b"c@d", b"e@f", b"g@h", b"i@j"))
    assert envelope == b"MAIL FROM:<a@b>\r\n" + recipients + b"DATA\r\n"
    assert [result.owes_report for result in found] == [True, False, False, False]


# -- the RFCs' own examples ------------------------------------------------------------------------------------

PEOPLE = (
    *("Bob@Example.COM", "Carol@Ivory.EDU", "Dana@Ivory.EDU", "Eric@Bombs.AF.MIL"),
    *("Fred@Bombs.AF.MIL", "George@Tax-ME.GOV"),
)
_S, _F = Notify.SUCCESS, Notify.FAILURE
WANTED = [{_S}, {_F}, {_S, _F}, {_F}, {Notify.NEVER}, {_F}]
ASKED = ["SUCCESS", "FAILURE", "SUCCESS,FAILURE", "FAILURE", "NEVER", "FAILURE"]


def alice(client: SMTPClient) -> None:
    client.send_message(
        "Alice@Example.ORG",
        [
            (to, RecipientOptions(frozenset(wanted), ("rfc822", to)))
            for to, wanted in zip(PEOPLE, WANTED, strict=True)
        ],
        MailOptions(ret=Return.HEADERS, envid="QQ314159"),
    )


def chris(client: SMTPClient) -> None:
    client.send_message("chris@bar.com", ["pat@foo.edu", "jones@foo.edu", "green@foo.edu"])


def whole(client: SMTPClient) -> None:
    client.send_body(b"Blah blah blah...\r\n...etc. etc. etc.\r\n")
    client.end_of_body()


BLAH = b"Blah blah blah...\r\n....etc. etc. etc.\r\n.\r\n"
THEN_QUIT: Callable[[SMTPClient], None] = SMTPClient.quit


def nothing(client: SMTPClient) -> None:
    """Another event is to come."""


EXAMPLES: dict[str, Script] = {
    "RFC 3461 section 10.1": Script(
        steps(SMTPClient.hello, alice, *[nothing] * 7, whole, nothing, THEN_QUIT),
        [
            (b"", b"220 Example.ORG SMTP server here\r\n"),
            (b"EHLO Example.ORG\r\n", b"250-Example.ORG\r\n250-DSN\r\n250-EXPN\r\n250-PIPELINING\r\n250 SIZE\r\n"),
            (
                b"MAIL FROM:<Alice@Example.ORG> RET=HDRS ENVID=QQ314159\r\n"
                + b"".join(
                    f"RCPT TO:<{to}> NOTIFY={asked} ORCPT=rfc822;{to}\r\n".encode()
                    for to, asked in zip(PEOPLE, ASKED, strict=True)
                )
                + b"DATA\r\n",
                b"250 <Alice@Example.ORG> sender ok\r\n" + b"250 recipient ok\r\n" * 6 + b"354 okay, send message\r\n",
            ),
            (BLAH, b"250 message accepted\r\n"),
            (b"QUIT\r\n", b"221 goodbye\r\n"),
        ],
        [
            *("greeting 220", "hello 250 DSN EXPN PIPELINING SIZE", "MAIL 250", *["RCPT 250"] * 6, "body", ". 250"),
            *("done" + " message:250" * 6, *CLOSED),
        ],
        name="Example.ORG",
    ),
    "RFC 2033 section 4.2": Script(
        steps(SMTPClient.hello, chris, *[nothing] * 4, whole, *[nothing] * 2, THEN_QUIT),
        [
            (b"", b"220 foo.edu LMTP server ready\r\n"),
            (b"LHLO foo.edu\r\n", b"250-foo.edu\r\n250-PIPELINING\r\n250 SIZE\r\n"),
            (
                b"MAIL FROM:<chris@bar.com>\r\nRCPT TO:<pat@foo.edu>\r\nRCPT TO:<jones@foo.edu>\r\n"
                b"RCPT TO:<green@foo.edu>\r\nDATA\r\n",
                b"250 OK\r\n250 OK\r\n550 No such user here\r\n250 OK\r\n"
                b"354 Start mail input; end with <CRLF>.<CRLF>\r\n",
            ),
            (BLAH, b"250 OK\r\n452 <green@foo.edu> is temporarily over quota\r\n"),
            (b"QUIT\r\n", b"221 foo.edu closing connection\r\n"),
        ],
        [
            *("greeting 220", "hello 250 PIPELINING SIZE", "MAIL 250", "RCPT 250", "RCPT 550", "RCPT 250", "body"),
            *(". 250", ". 452", "done message:250 RCPT:550 message:452", *CLOSED),
        ],
        lmtp=True,
        name="foo.edu",
    ),
    "RFC 2920 section 3.3": Script(
        steps(
            SMTPClient.hello,
            lambda c: c.send_message(
                "mrose@dbc.mtview.ca.us", ["ned@innosoft.com", "dan@innosoft.com", "kvc@innosoft.com"]
            ),
            *[nothing] * 4,
            whole,
            nothing,
            THEN_QUIT,
        ),
        [
            (b"", b"220 innosoft.com SMTP service ready\r\n"),
            (b"EHLO dbc.mtview.ca.us\r\n", b"250-innosoft.com\r\n250 PIPELINING\r\n"),
            (
                b"MAIL FROM:<mrose@dbc.mtview.ca.us>\r\nRCPT TO:<ned@innosoft.com>\r\nRCPT TO:<dan@innosoft.com>\r\n"
                b"RCPT TO:<kvc@innosoft.com>\r\nDATA\r\n",
                b"250 sender <mrose@dbc.mtview.ca.us> OK\r\n250 recipient <ned@innosoft.com> OK\r\n"
                b"250 recipient <dan@innosoft.com> OK\r\n250 recipient <kvc@innosoft.com> OK\r\n"
                b"354 enter mail, end with line containing only \".\"\r\n",
            ),
            (BLAH, b"250 message sent\r\n"),
            (b"QUIT\r\n", b"221 goodbye\r\n"),
        ],
        [
            *("greeting 220", "hello 250 PIPELINING", "MAIL 250", *["RCPT 250"] * 3, "body", ". 250"),
            *("done" + " message:250" * 3, *CLOSED),
        ],
        name="dbc.mtview.ca.us",
    ),
    "RFC 4954 section 5": Script(
        steps(
            SMTPClient.hello,
            lambda c: c.mail("e=mc2@example.com", MailOptions(auth="e=mc2@example.com")),
            THEN_QUIT,
        ),
        [
            HELLO,
            (b"EHLO jgm.example.com\r\n", b"250-smtp.example.com\r\n250 AUTH CRAM-MD5\r\n"),
            (b"MAIL FROM:<e=mc2@example.com> AUTH=e+3Dmc2@example.com\r\n", b"250 OK\r\n"),
            QUIT,
        ],
        ["greeting 220", "hello 250 AUTH", "MAIL 250", *CLOSED],
        name="jgm.example.com",
    ),
    "XCLIENT": Script(
        steps(
            SMTPClient.hello,
            lambda c: c.xclient(
                Xclient(
                    name="spike.porcupine.org", addr="168.100.189.2", proto="ESMTP", helo=Unavailable.UNAVAILABLE
                )
            ),
            SMTPClient.hello,
            THEN_QUIT,
        ),
        [
            (b"", b"220 server.example.com ESMTP Postfix\r\n"),
            (b"EHLO client.example\r\n", hello("XCLIENT NAME ADDR PROTO HELO", "DSN")),
            (
                b"XCLIENT NAME=spike.porcupine.org ADDR=168.100.189.2 PROTO=ESMTP HELO=[UNAVAILABLE]\r\n",
                b"220 server.example.com ESMTP Postfix\r\n",
            ),
            (b"EHLO client.example\r\n", hello("DSN")),
            QUIT,
        ],
        ["greeting 220", "hello 250 XCLIENT DSN", "greeting 220", "hello 250 DSN", *CLOSED],
    ),
    "XCLIENT refused": Script(
        steps(SMTPClient.hello, lambda c: c.xclient(Xclient(name="x")), SMTPClient.noop, THEN_QUIT),
        [
            HELLO,
            (b"EHLO client.example\r\n", hello("XCLIENT NAME")),
            (b"XCLIENT NAME=x\r\n", b"550 5.7.0 not you\r\n"),
            (b"NOOP\r\n", OK),
            QUIT,
        ],
        ["greeting 220", "hello 250 XCLIENT", "XCLIENT 550", "NOOP 250", *CLOSED],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_rfcs_in_every_cutting(name: str) -> None:
    play_every_way(EXAMPLES[name])


def test_requiretls_by_hand_needs_tls() -> None:
    client = at_ready(hello("REQUIRETLS"))
    with pytest.raises(LocalProtocolError, match=r"without TLS: call starttls\(\) first"):
        client.mail("roger@example.org", MailOptions(require_tls=True))
    client.in_tls = True
    client.mail("roger@example.org", MailOptions(require_tls=True))
    assert client.data_to_send() == b"MAIL FROM:<roger@example.org> REQUIRETLS\r\n"


# -- XCLIENT ---------------------------------------------------------------------------------------------------


def test_h70_xclient_begins_the_session_anew() -> None:
    client = at_ready(hello("XCLIENT NAME", "AUTH PLAIN", "PIPELINING"))
    client.authenticate(plain(), allow_clear=True)
    assert answer(client, b"235 ok\r\n") == "authenticated 235"
    client.xclient(Xclient(name="host.example"))
    client.receive_data(b"220 mx\r\n")
    assert isinstance(client.next_event(), Greeting)
    assert client.state is State.CONNECTED and not client.authenticated and len(client.capabilities) == 0
    with pytest.raises(LocalProtocolError, match=r"call hello\(\) first"):
        client.mail("a@b")


ALL_ATTRIBUTES = "XCLIENT " + " ".join(XCLIENT_ATTRIBUTES)


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        (Xclient(addr="2001:db8::1"), b"XCLIENT ADDR=IPV6:2001:db8::1\r\n"),
        (Xclient(login="a b+c=d", port=25), b"XCLIENT PORT=25 LOGIN=a+20b+2Bc+3Dd\r\n"),
        (Xclient(login="\xe9"), b"XCLIENT LOGIN=+C3+A9\r\n"),
        (
            Xclient(name=Unavailable.TEMPUNAVAIL, destaddr="192.0.2.1", destport=25),
            b"XCLIENT NAME=[TEMPUNAVAIL] DESTADDR=192.0.2.1 DESTPORT=25\r\n",
        ),
    ],
)
def test_xclient_values_are_xtext(attributes: Xclient, line: bytes) -> None:
    client = at_ready(hello(ALL_ATTRIBUTES))
    client.xclient(attributes)
    assert client.data_to_send() == line
    assert parse_xclient(line[8:].rstrip()) == attributes


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (Xclient(), "no attribute"),
        (Xclient(name=""), "NAME="),
        (Xclient(name="x\r\nRSET"), "control characters"),
        (Xclient(name="x y"), "NAME=x y"),
        (Xclient(login="\udcff"), "no server would understand"),
        (Xclient(port=65536), "PORT=65536"),
        (Xclient(addr="example.org"), "ADDR=example.org"),
        (Xclient(proto="LMTP"), "PROTO=LMTP"),
        (Xclient(name="n" * 255, helo="h" * 255), "over 512"),
    ],
)
def test_h64_xclient_that_cannot_be_sent(attributes: Xclient, said: str) -> None:
    client = at_ready(hello(ALL_ATTRIBUTES))
    with pytest.raises(LocalProtocolError, match=said):
        client.xclient(attributes)
    assert client.data_to_send() == b""


def test_only_the_attributes_that_are_offered() -> None:
    with pytest.raises(LocalProtocolError, match="offers NAME LOGIN, not HELO: leave it out"):
        at_ready(hello("XCLIENT NAME LOGIN")).xclient(Xclient(name="x", helo="y"))
    with pytest.raises(LocalProtocolError, match="offers no XCLIENT, not NAME"):
        at_ready(hello("DSN")).xclient(Xclient(name="x"))


# -- LIMITS (RFC 9422) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "limits"),
    [
        (["LIMITS MAILMAX=5 RCPTMAX=20 RCPTDOMAINMAX=1"], (5, 20, 1)),
        (["LIMITS rcptmax=7"], (None, 7, None)),
        (["LIMITS RCPTMAX=0 MAILMAX=05 RCPTDOMAINMAX=x"], (None, None, None)),
        (["LIMITS RCPTMAX=999999 MAILMAX=1000000"], (None, 999999, None)),
        (["LIMITS RCPTMAX= MAILMAX=+5 RCPTDOMAINMAX=1_0"], (None, None, None)),
        (["LIMITS RCPTMAX=\u0665"], (None, None, None)),
        (["LIMITS"], (None, None, None)),
        (["RCPTMAX=5"], (None, None, None)),
        (["LIMITS X=1 RCPTMAX=2", "LIMITS MAILMAX=3"], (3, 2, None)),
    ],
)
def test_h92_limits(lines: list[str], limits: tuple[int | None, int | None, int | None]) -> None:
    capabilities = Capabilities.parse(lines)
    assert tuple(capabilities.limit(name) for name in ("MAILMAX", "RCPTMAX", "RCPTDOMAINMAX")) == limits


def test_limits_of_a_transaction() -> None:
    client = at_ready(hello("PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=2"))
    client.mail("a@b")
    client.recipient("c@d")
    client.recipient("e@f")
    with pytest.raises(LocalProtocolError, match=r"takes 2 in a transaction.*call mail\(\) again"):
        client.recipient("g@h")
    client.receive_data(OK * 3)
    assert [show_next(client) for _ in range(3)] == ["MAIL 250", "RCPT 250", "RCPT 250"]
    with pytest.raises(LocalProtocolError, match=r"send to those that batch\(\) names"):
        client.send_message("a@b", ["c@d", "e@f", "g@h"])
    client.send_message("a@b", ["c@d", "e@f"])
    client.receive_data(OK + NO + b"503 no\r\n" * 3)
    while show_next(client) != "done MAIL:550 MAIL:550":
        pass
    with pytest.raises(LocalProtocolError, match=r"takes 2 in a session.*call quit\(\)"):
        client.mail("a@b")  # a refused one counts
    with pytest.raises(LocalProtocolError, match="in another session if it names none"):
        client.send_message("a@b", ["c@d"])
    assert client.batch([Address(b"c@d")]) == []


def test_limits_of_domains_are_those_of_a_session() -> None:
    client = at_ready(hello("PIPELINING", "LIMITS RCPTDOMAINMAX=2 RCPTMAX=3"))
    to = [Address(text) for text in (b"a@x", b"b@y", b"c@z", b"d@X", b"e@y", b"f@w")]
    assert client.batch(to) == [0, 1, 3]
    client.send_message("a@b", [to[0], to[1], to[3]])
    assert client.batch([to[2], to[4], to[5]]) == [1]
    client.receive_data(OK + NO * 4)
    while not show_next(client).startswith("done"):
        pass
    client.reset()
    client.mail("a@b")
    client.recipient("g@Y")
    with pytest.raises(LocalProtocolError, match="takes 2 domains in a session"):
        client.recipient("c@z")


@given(
    st.lists(st.sampled_from(["a@x", "b@y", "c@z", "d@X", "e", "f@y"]), min_size=1, max_size=12),
    *[st.none() | st.integers(1, 4)] * 3,
)
def test_batches_reach_everybody_once_and_keep_the_limits(
    texts: list[str], mails: int | None, recipients: int | None, domains: int | None
) -> None:
    limits = {"MAILMAX": mails, "RCPTMAX": recipients, "RCPTDOMAINMAX": domains}
    capabilities = Capabilities({"LIMITS": [f"{name}={value}" for name, value in limits.items() if value is not None]})
    left = [Address(text.encode()) for text in texts]
    sessions = 0
    while left:
        sessions += 1
        assert sessions <= len(texts)
        use, seen, transactions = LimitsUse(), set(), 0
        while batch := use.batch(left, capabilities):
            use.check_transaction(capabilities)
            use.transaction()
            transactions += 1
            for index in batch:
                use.check_recipient(left[index], capabilities)
                use.recipient(left[index])
                seen.add(left[index].domain.lower())
            assert recipients is None or len(batch) <= recipients
            left = [address for index, address in enumerate(left) if index not in batch]
        assert transactions and (mails is None or transactions <= mails)
        assert domains is None or len(seen) <= domains


# -- what a broken server sent is attached (H63) ---------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
def test_h63_the_offending_reply_is_attached(name: str) -> None:
    sent, _ = BROKEN[name]
    client = at_ready(PLAIN_OLD[1])
    client.mail("a@b")
    client.receive_data(sent)
    with pytest.raises(RemoteProtocolError) as caught:
        client.next_event()
    error = caught.value
    assert str(error).isprintable() and str(error).isascii() and len(str(error)) < 400
    assert len(error.received) <= MAX_KEPT
    if len(sent) < MAX_KEPT:
        assert sent.startswith(error.received) and error.received
    elif name == "too many lines":
        assert sent.endswith(error.received)
    else:
        assert error.received == b""  # a line that is too long is not kept


def test_h63_a_reply_to_nothing_is_attached_too() -> None:
    client = at_ready(PLAIN_OLD[1])
    client.receive_data(b"250-\xff\x1b[31m\r\n250 b\r\n")
    with pytest.raises(RemoteProtocolError, match="a reply to no command: 250") as caught:
        client.next_event()
    assert caught.value.received.startswith(b"250-\xff")
    assert str(caught.value).isprintable()
