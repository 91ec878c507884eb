"""What extensions and applications add to the server machine: typed parameters, words, capabilities and parameters of
one's own, other replies, XCLIENT. Their dialogues are in the transcripts."""

import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    NEED_DATA,
    PAUSED,
    Body,
    BodyType,
    Connected,
    Data,
    Event,
    Helo,
    LocalProtocolError,
    Mail,
    MailOptions,
    MessageEnd,
    Notify,
    Recipient,
    RecipientOptions,
    Refused,
    Reply,
    Return,
    SMTPServer,
    State,
    Unavailable,
    Verify,
    Xclient,
    answers,
)
from mailfront_proto.smtp.parameters import NULL_SUBMITTER
from mailfront_proto.smtp.xclient import XclientError, parse_xclient
from tests.proto.server_script import Outcome, accept_all, play

EVERYTHING = frozenset(("BINARYMIME", "DSN", "REQUIRETLS"))
ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


def machine_with(*extensions: str) -> SMTPServer:
    machine = SMTPServer("mx.example.org")
    machine.extensions |= frozenset(extensions)
    return machine


def say(machine: SMTPServer, wire: bytes) -> Outcome:
    return play(machine, [[wire]], eof=False)


def capabilities(machine: SMTPServer) -> list[str]:
    return say(machine, b"EHLO x\r\n").output.decode().partition("250-mx.example.org\r\n")[2].split("\r\n")[:-1]


# -- typed parameters ------------------------------------------------------------------------------------


def test_parameters_come_as_values_too() -> None:
    machine = machine_with(*EVERYTHING)
    machine.tls_established()
    outcome = say(
        machine,
        b"EHLO x\r\nMAIL FROM:<a@b.example> SIZE=100 body=BinaryMIME SMTPUTF8 RET=HDRS ENVID=A+20B REQUIRETLS\r\n"
        b"RCPT TO:<c@d.example> NOTIFY=DELAY,FAILURE ORCPT=rfc822;bob+2Bx@d.example\r\nRCPT TO:<e@f.example>\r\n",
    )
    mail, first, second = outcome.events[-3:]
    assert isinstance(mail, Mail) and isinstance(first, Recipient) and isinstance(second, Recipient)
    assert mail.options == MailOptions(
        size=100, body=BodyType.BINARY_MIME, smtputf8=True, ret=Return.HEADERS, envid="A B", require_tls=True
    )
    assert mail.parameters[:2] == ["SIZE=100", "body=BinaryMIME"]
    assert first.options == RecipientOptions(frozenset({Notify.DELAY, Notify.FAILURE}), ("rfc822", "bob+x@d.example"))
    assert second.options == RecipientOptions()


def test_the_submitter_is_believed_once_the_client_has_authenticated() -> None:
    """RFC 4954 section 5."""
    machine = machine_with()
    machine.sasl = ServerOptions(("PLAIN",))
    line = b"MAIL FROM:<a@b.example> AUTH=joe@example.org\r\nRSET\r\n"
    login = b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"
    outcome = say(machine, b"EHLO x\r\n" + line + login + line + b"EHLO x\r\n" + line)
    submitters = [event.options.auth for event in outcome.events if isinstance(event, Mail)]
    assert submitters == [NULL_SUBMITTER, "joe@example.org", "joe@example.org"]


def test_compat_reads_no_parameters() -> None:
    outcome = say(SMTPServer("mx.example.org", COMPAT), b"EHLO x\r\nMAIL FROM:<a@b> SIZE=x BODY=8BITMIME =\r\n")
    mail = outcome.events[-1]
    assert isinstance(mail, Mail)
    assert (mail.parameters, mail.options) == (["SIZE=x", "BODY=8BITMIME", "="], MailOptions())


def test_vrfy_tells_whether_the_client_takes_utf8() -> None:
    machine = SMTPServer("mx.example.org", replace(DEFAULT, knows_expn=True))
    outcome = say(machine, "EHLO x\r\nVRFY j\u00f6rg SMTPUTF8\r\nEXPN list\r\nEXPN list smtpUTF8 \r\n".encode())
    assert outcome.events[-3:] == [
        Verify("VRFY", "j\u00f6rg", True), Verify("EXPN", "list", False), Verify("EXPN", "list", True)
    ]  # fmt: skip


# -- what is offered -------------------------------------------------------------------------------------


def test_what_is_offered_by_default() -> None:
    assert capabilities(machine_with()) == [
        "250-SIZE 52428800", "250-8BITMIME", "250-CHUNKING", "250-ENHANCEDSTATUSCODES", "250-LIMITS RCPTMAX=1000",
        "250-PIPELINING", "250 SMTPUTF8",
    ]  # fmt: skip


def test_the_original_offers_no_more_than_it_did() -> None:
    compat = SMTPServer("mx.example.org", COMPAT)
    assert compat.capabilities == ["8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING"]


def test_what_the_application_allows_is_offered_where_it_can_be() -> None:
    machine = machine_with(*EVERYTHING)
    assert "250-BINARYMIME" in capabilities(machine) and "250-DSN" in capabilities(machine)
    assert "250-REQUIRETLS" not in capabilities(machine)
    machine = machine_with(*EVERYTHING)
    machine.tls_established()
    assert "250-REQUIRETLS" in capabilities(machine)
    machine.extensions -= {"CHUNKING"}
    assert "250-BINARYMIME" not in capabilities(machine)
    machine.extensions = frozenset()
    assert machine.capabilities == []
    unlimited = SMTPServer("mx", replace(DEFAULT, limits=replace(DEFAULT.limits, recipients=None, message_size=None)))
    assert unlimited.capabilities == ["8BITMIME", "CHUNKING", "ENHANCEDSTATUSCODES", "PIPELINING", "SMTPUTF8"]


def test_capabilities_of_ones_own() -> None:
    machine = machine_with()
    machine.register_capability("X-OURS one two")
    machine.register_capability("size 5")
    lines = capabilities(machine)
    assert lines[:2] == ["250-X-OURS one two", "250-size 5"]
    assert not any("SIZE 5242" in line for line in lines)
    machine.unregister_capability("x-ours")
    machine.unregister_capability("SIZE")
    assert capabilities(machine)[0] == "250-SIZE 52428800"
    assert say(machine, b"HELO x\r\n").output == b"250 mx.example.org\r\n"


def test_parameters_of_ones_own() -> None:
    machine = machine_with()
    machine.register_parameter("MAIL", "mt-priority", lambda value: value in ("1", "2"), capability="mt-priority")
    machine.register_parameter("RCPT", "XTAG")
    line = b"MAIL FROM:<a@b.example> MT-Priority=1\r\n"
    assert say(machine, b"EHLO x\r\n" + line).codes()[-1] == 555
    machine.register_capability("MT-PRIORITY")
    recipients = b"RCPT TO:<c@d.example> xTag xtag=1\r\nRCPT TO:<c@d.example> xtag=1\r\n"
    outcome = say(machine, b"EHLO x\r\n" + line + recipients)
    assert outcome.codes() == [250, 250, 501, 250]
    mail, recipient = (event for event in outcome.events if isinstance(event, Mail | Recipient))
    assert mail.options.others == (("MT-PRIORITY", "1"),)
    assert recipient.options.others == (("XTAG", "1"),)
    assert say(machine, line.replace(b"=1", b"=3")).codes() == [501]
    machine.unregister_parameter("MAIL", "MT-PRIORITY")
    assert say(machine, line).codes() == [555]


# -- other words -----------------------------------------------------------------------------------------


def test_every_reply_of_the_machine_can_be_replaced() -> None:
    machine = SMTPServer("mx.example.org", replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=3, errors=3)))
    for original, replacement in (
        (answers.NEED_HELO, Reply(550, "5.5.1 Manners")),
        (answers.NOOP_DONE, Reply(250, "2.0.0 Nothing done")),
        (answers.CHUNK_RECEIVED, Reply(250, "2.0.0 More")),
        (answers.TOO_BIG, Reply(452, "4.3.1 Not today")),
        (answers.NOT_IMPLEMENTED, Reply(502, "5.5.1 What?")),
        (answers.TOO_MANY_ERRORS, Reply(421, "4.7.0 Enough")),
        (Reply(250, "2.1.0 Sender accepted."), Reply(250, "2.1.0 A fine sender")),
        (Reply(354, "End your message with a period on a line by itself."), Reply(354, "Speak")),
    ):
        machine.override_reply(original, replacement)
    outcome = say(
        machine,
        b"MAIL FROM:<a@b>\r\nNOOP\r\n" + ENVELOPE + b"BDAT 1\r\naBDAT 5\r\nabcde"
        b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nabcd\r\n.\r\nX\r\nY\r\nZ\r\nV\r\n",
    )
    said = outcome.output.decode().split("\r\n")[:-1]
    assert [line for line in said if not line.startswith("250-")] == [
        "220 mx.example.org mailfront ESMTP", "550 5.5.1 Manners", "250 2.0.0 Nothing done", "250 SMTPUTF8",
        "250 2.1.0 A fine sender", "250 2.1.5 Recipient accepted.", "250 2.0.0 More", "452 4.3.1 Not today",
        "250 2.1.0 A fine sender", "250 2.1.5 Recipient accepted.", "354 Speak", "452 4.3.1 Not today",
        "502 5.5.1 What?", "502 5.5.1 What?", "502 5.5.1 What?", "421 4.7.0 Enough",
    ]  # fmt: skip
    refused = [str(event.reply) for event in outcome.events if isinstance(event, Refused)]
    assert refused == ["550 5.5.1 Manners", *["502 5.5.1 What?"] * 3, "421 4.7.0 Enough"]
    assert machine.state is State.CLOSED
    assert machine.next_event() == outcome.events[-1]


MISUSES: dict[str, tuple[Callable[[SMTPServer], object], str]] = {
    "a refusal for an acceptance": (
        lambda m: m.override_reply(answers.NOOP_DONE, Reply(500, "no")), "500 cannot stand for 250"
    ),
    "an end for a refusal": (
        lambda m: m.override_reply(answers.NEED_HELO, Reply(421, "4.0.0 bye")), "421 for 421 alone"
    ),
    "a refusal for an end": (
        lambda m: m.override_reply(answers.TOO_MANY_ERRORS, Reply(500, "no")), "421 for 421 alone"
    ),
    "a capability of two lines": (lambda m: m.register_capability("X\r\nY"), "a keyword of ASCII letters"),
    "a capability that is none": (lambda m: m.register_capability(""), "a keyword of ASCII letters"),
    "a parameter of DATA": (lambda m: m.register_parameter("DATA", "X"), "the verb is 'MAIL' or 'RCPT'"),
    "a parameter with a blank": (lambda m: m.register_parameter("MAIL", "X Y"), "the keyword ASCII letters"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_says_what_is_right(name: str) -> None:
    misuse, hint = MISUSES[name]
    with pytest.raises(LocalProtocolError, match=hint):
        misuse(machine_with())


def test_a_reply_to_xclient_is_no_acceptance() -> None:
    machine = machine_with()
    machine.offers_xclient = True
    machine.next_event()
    machine.accept()
    machine.receive_data(b"XCLIENT NAME=a.example\r\n")
    assert machine.next_event() == Xclient(name="a.example")
    with pytest.raises(LocalProtocolError, match="250 is no possible answer to Xclient"):
        machine.reply(250, "ok")
    machine.reply(550, "5.7.1 Not from you")
    assert machine.state is State.CONNECTED
    assert machine.data_to_send().endswith(b"550 5.7.1 Not from you\r\n")


# -- BDAT ------------------------------------------------------------------------------------------------


def test_the_first_chunk_asks_as_data_does() -> None:
    machine = machine_with()
    play(machine, [[ENVELOPE]], eof=False)
    machine.receive_data(b"BDAT 3\r\nabcBDAT 0 LAST\r\n")
    assert machine.next_event() == Data(chunked=True)
    assert machine.next_event() is PAUSED
    machine.accept()
    assert machine.data_to_send() == b""
    assert machine.in_transaction
    assert machine.next_event() == Body(b"abc")
    assert machine.next_event() == MessageEnd()
    assert machine.data_to_send() == b"250 2.0.0 Chunk received.\r\n"
    machine.reply(250, "2.6.0 Thanks")
    assert machine.data_to_send() == b"250 2.6.0 Thanks\r\n"
    assert machine.next_event() is NEED_DATA
    assert machine.state is State.READY


def test_the_354_of_data_accepts_a_chunk_too() -> None:
    machine = machine_with()
    play(machine, [[ENVELOPE]], eof=False)
    machine.receive_data(b"BDAT 3 LAST\r\n")
    machine.next_event()
    machine.reply(354, "not said")
    assert machine.data_to_send() == b""
    assert machine.state is State.CHUNK


def test_421_to_the_first_chunk_waits_for_nothing() -> None:
    machine = machine_with()
    play(machine, [[ENVELOPE]], eof=False)
    machine.receive_data(b"BDAT 3\r\n")
    machine.next_event()
    machine.reply(421, "4.3.2 Going down")
    assert machine.data_to_send() == b"421 4.3.2 Going down\r\n"
    assert machine.state is State.CLOSED


def test_421_without_an_end_drains_the_chunk() -> None:
    machine = SMTPServer("mx.example.org", replace(DEFAULT, closes_on_421=False))
    play(machine, [[ENVELOPE]], eof=False)
    machine.receive_data(b"BDAT 6\r\nQUIT\r\nNOOP\r\n")
    machine.next_event()
    machine.reply(421, "4.3.2 Not now")
    assert machine.next_event() is NEED_DATA
    assert machine.data_to_send() == b"421 4.3.2 Not now\r\n250 2.3.0 OK\r\n"


def test_an_envelope_that_survives_is_not_for_the_chunks_behind_a_failed_one() -> None:
    """Else the rest of a message would be taken for a message."""
    profile = replace(DEFAULT, envelope_survives_message=True, limits=replace(DEFAULT.limits, message_size=3))
    for refuses in (False, True):
        machine = SMTPServer("mx.example.org", profile)

        def answer(machine: SMTPServer, event: Event, refuses: bool = refuses) -> None:
            if refuses and isinstance(event, Data):
                machine.reply(451, "4.3.0 No")
            else:
                accept_all(machine, event)

        outcome = play(machine, [[ENVELOPE + b"BDAT 4\r\nabcdBDAT 2 LAST\r\nxy"]], answer, eof=False)
        assert outcome.codes()[4:] == [451 if refuses else 552, 503]
        machine = SMTPServer("mx.example.org", profile)
        outcome = say(machine, ENVELOPE + b"BDAT 2 LAST\r\nxyBDAT 2 LAST\r\nzz")
        assert outcome.codes()[4:] == [250, 250]


def test_millions_of_chunks_of_one_octet_in_constant_memory() -> None:
    machine = SMTPServer("mx.example.org", replace(DEFAULT, limits=replace(DEFAULT.limits, message_size=None)))
    say(machine, ENVELOPE)
    wire = b"BDAT 1\r\nx" * 2000

    def feed() -> int:
        machine.receive_data(wire)
        octets = 0
        while (event := machine.next_event()) is not NEED_DATA:
            if isinstance(event, Body):
                octets += len(event.data)
            elif event is PAUSED:
                assert machine.data_to_send() or not machine.answer_owed
            elif machine.answer_owed:
                machine.accept()
        machine.data_to_send()
        return octets

    feed()
    ours = [tracemalloc.Filter(True, "*mailfront_proto*")]  # the test runner's threads allocate, too
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot().filter_traces(ours)
        assert sum(feed() for _ in range(5)) == 10_000
        after = tracemalloc.take_snapshot().filter_traces(ours)
        grown = sum(entry.size_diff for entry in after.compare_to(before, "filename"))
    finally:
        tracemalloc.stop()
    assert grown < 4096
    assert machine._transaction.recipients == 1


# -- XCLIENT ---------------------------------------------------------------------------------------------


def test_what_xclient_says() -> None:
    assert parse_xclient(
        b"name=[Unavailable]  ADDR=ipv6:2001:DB8::1 PORT=[TEMPUNAVAIL] PROTO=esmtp HELO=x LOGIN=j+C3+B6rg"
        b" DESTADDR=192.0.2.1 DESTPORT=0025"
    ) == Xclient(
        name=Unavailable.UNAVAILABLE, addr="2001:DB8::1", port=Unavailable.TEMPUNAVAIL, proto="ESMTP", helo="x",
        login="j\u00f6rg", destaddr="192.0.2.1", destport=25,
    )  # fmt: skip


@given(st.binary(max_size=60) | st.sampled_from([b"NAME=", b"ADDR=1", b"LOGIN=+0A", b"NAME=a NAME=a", b"PORT=65536"]))
def test_xclient_is_read_totally(argument: bytes) -> None:
    try:
        event = parse_xclient(argument)
    except XclientError:
        return
    for value in (event.name, event.addr, event.helo, event.login, event.destaddr):
        assert not isinstance(value, str) or (value and re.search("[\x00-\x1f\x7f-\x9f]", value) is None)


def test_a_login_by_xclient_counts_until_the_next() -> None:
    machine = machine_with()
    machine.offers_xclient = True
    machine.sasl = ServerOptions(("PLAIN",))
    for attributes, authenticated in ((b"LOGIN=joe", True), (b"NAME=a", False), (b"LOGIN=[UNAVAILABLE]", False)):
        outcome = say(machine, b"XCLIENT " + attributes + b"\r\nEHLO x\r\n")
        assert [type(event) for event in outcome.events][-3:] == [Xclient, Connected, Helo]
        assert machine.authenticated is authenticated
        assert (b"AUTH PLAIN" in outcome.output) is not authenticated
