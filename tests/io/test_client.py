"""The client session against scripted servers, in virtual time."""

import io
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mailfront_io import client
from mailfront_io.client import (
    AuthenticationRefused,
    ClientDeadlines,
    ConnectionFailed,
    Credentials,
    SendError,
    SendResult,
    ServerRefused,
    TLSPolicy,
    TLSUnavailable,
)
from mailfront_io.frontends.client_settings import ClientSettings
from mailfront_io.frontends.outgoing import BLOCK, Measure, Message, MessageSource, OutgoingMessage, measure
from mailfront_io.frontends.smtp_client import SMTPClientSession
from mailfront_io.ops import Connection, Thread
from mailfront_io.testing import EOF, RESET, STALL, Action, Advance, PeerTLS, Played, WaitFor, run_script
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.client_events import Stage
from mailfront_proto.smtp.parameters import MailOptions
from tests import certificates

GREETING = b"220 mx.example.org ESMTP\r\n"
OFFERS = b"250-mx.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 2000000\r\n"
EHLO: list[Action] = [GREETING, WaitFor(b"\r\n"), OFFERS + b"250 ENHANCEDSTATUSCODES\r\n"]
ENVELOPE: list[Action] = [WaitFor(b"DATA\r\n"), b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n"]
MESSAGE: list[Action] = [WaitFor(b"\r\n.\r\n"), b"250 2.0.0 kept\r\n"]
QUIT: list[Action] = [WaitFor(b"QUIT\r\n"), b"221 bye\r\n", EOF]
STARTTLS: list[Action] = [
    GREETING,
    *(WaitFor(b"EHLO"), OFFERS + b"250 STARTTLS\r\n"),
    *(WaitFor(b"STARTTLS\r\n"), b"220 go\r\n"),
]

CLEAR = ClientSettings(tls=TLSPolicy.NONE)
BODY = b"Subject: x\r\n\r\nHello.\r\n"
USER = Credentials("me", Secret(b"correct horse"))


class Talk:
    """What came of one session: `result`, or the `error`, and what was `played`."""

    result: SendResult
    error: SendError

    def __init__(
        self,
        script: Sequence[Action],
        settings: ClientSettings = CLEAR,
        *,
        to: Sequence[str] = ("you@example.org",),
        body: Message = BODY,
        fails: type[BaseException] | None = None,
        **options: Any,
    ) -> None:
        self.said: list[str] = []
        self.settings = replace(settings, transcript=self.said.append)
        self._message = OutgoingMessage("me@example.net", list(to), body)
        local = ("192.0.2.9", 40_000)
        self.played: Played = run_script(self._run, script, local=local, catch=fails is not None, **options)
        if fails is not None:
            assert isinstance(self.played.error, fails), self.played
        if isinstance(self.played.error, SendError):
            self.error = self.played.error

    async def _run(self, connection: Connection) -> int:
        self.result = await SMTPClientSession(connection, "mx.example.org", self.settings).run(self._message)
        return 0

    @property
    def replies(self) -> list[str]:
        return [str(recipient.reply) for recipient in self.result.recipients]

    @property
    def stages(self) -> set[Stage]:
        return {recipient.stage for recipient in self.result.recipients}


# -- one message ------------------------------------------------------------------------------------------


def test_one_message() -> None:
    talk = Talk([*EHLO, *ENVELOPE, *MESSAGE, *QUIT])
    assert talk.played.output == (
        b"EHLO [192.0.2.9]\r\n"
        b"MAIL FROM:<me@example.net> SIZE=22\r\nRCPT TO:<you@example.org>\r\nDATA\r\n" + BODY + b".\r\nQUIT\r\n"
    )
    writes = [data for _, data in talk.played.writes]
    assert len(writes) == 4  # EHLO, the envelope, the message with its dot, QUIT
    result = talk.result
    assert result.delivered and result.refused == [] and result.temporary == []
    assert talk.replies == ["250 2.0.0 kept"]
    assert str(result.greeting) == "220 mx.example.org ESMTP"
    assert result.capabilities.size == 2_000_000
    assert result.tls is None
    assert [step.name for step in result.steps] == [
        *("greeting", "EHLO", "MAIL", "RCPT", "DATA", "message", ".", "QUIT"),
    ]


def test_steps_are_timed_each_from_the_end_of_the_one_before() -> None:
    slow: list[Action] = [Advance(2), *EHLO, WaitFor(b"DATA"), Advance(3), *ENVELOPE[1:], WaitFor(b"."), Advance(5)]
    talk = Talk([*slow, b"250 ok\r\n", *QUIT])
    seconds = {step.name: step.seconds for step in talk.result.steps}
    assert seconds == {
        **{"greeting": 2.0, "EHLO": 0.0, "MAIL": 3.0, "RCPT": 0.0, "DATA": 0.0, "message": 0.0, ".": 5.0, "QUIT": 0.0}
    }


def bytewise(data: bytes) -> list[Action]:
    return [data[i : i + 1] for i in range(len(data))]


def test_replies_byte_by_byte_make_no_difference() -> None:
    whole = Talk([*EHLO, *ENVELOPE, *MESSAGE, *QUIT])
    script: list[Action] = []
    for action in (*EHLO, *ENVELOPE, *MESSAGE, *QUIT):
        script += bytewise(action) if isinstance(action, bytes) else [action]
    talk = Talk(script)
    assert talk.played.output == whole.played.output
    assert talk.result.recipients == whole.result.recipients
    assert talk.said == whole.said


def test_each_recipient_has_a_result_of_its_own() -> None:
    answers = b"250 ok\r\n250 ok\r\n550 5.1.1 Who?\r\n450 4.2.1 Later\r\n354 go\r\n"
    talk = Talk([*EHLO, WaitFor(b"DATA\r\n"), answers, *MESSAGE, *QUIT], to=["a@x", "b@x", "c@x"])
    assert talk.replies == ["250 2.0.0 kept", "550 5.1.1 Who?", "450 4.2.1 Later"]
    assert not talk.result.delivered
    assert [str(r.address) for r in talk.result.refused] == ["b@x"]
    assert [str(r.address) for r in talk.result.temporary] == ["c@x"]


def test_nothing_is_sent_when_everybody_was_refused() -> None:
    answers = b"250 ok\r\n550 no\r\n354 go\r\n"
    talk = Talk([*EHLO, WaitFor(b"DATA\r\n"), answers, WaitFor(b".\r\n"), b"554 none\r\n", *QUIT])
    assert talk.replies == ["550 no"]
    assert BODY not in talk.played.output


def test_a_long_envelope_goes_out_as_the_answers_come() -> None:
    to = [f"{i}.{'x' * 40}@{'y' * 60}.example.org" for i in range(250)]
    answers: list[Action] = [b"250 ok\r\n", *[b"250 ok\r\n"] * 250, WaitFor(b"DATA\r\n"), b"354 go\r\n"]
    talk = Talk([*EHLO, WaitFor(b"\r\nRCPT"), *answers, *MESSAGE, *QUIT], to=to)
    assert talk.result.delivered and len(talk.result.recipients) == 250


def test_without_pipelining_one_command_at_a_time() -> None:
    script: list[Action] = [GREETING, WaitFor(b"EHLO"), b"502 what\r\n", WaitFor(b"HELO"), b"250 mx\r\n"]
    for verb in (b"MAIL FROM:<me@example.net>\r\n", b"RCPT TO:<you@example.org>\r\n"):
        script += [WaitFor(verb), b"250 ok\r\n"]
    talk = Talk([*script, WaitFor(b"DATA"), b"354 go\r\n", *MESSAGE, *QUIT])
    assert talk.result.delivered
    assert talk.result.capabilities == {}


def test_lmtp_answers_for_each_recipient() -> None:
    script: list[Action] = [GREETING, WaitFor(b"LHLO"), b"250-x\r\n250 PIPELINING\r\n", WaitFor(b"DATA\r\n")]
    script += [b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", WaitFor(b"\r\n.\r\n"), b"250 one\r\n", Advance(599)]
    talk = Talk([*script, b"452 full\r\n", *QUIT], replace(CLEAR, lmtp=True), to=["a@x", "b@x"])
    assert talk.replies == ["250 one", "452 full"]


def test_parameters_and_local_name() -> None:
    settings = replace(CLEAR, local_name="client.example.net", mail_options=MailOptions(others=(("X-RET", "1"),)))
    talk = Talk([*EHLO, *ENVELOPE, *MESSAGE, *QUIT], settings)
    assert talk.played.output.startswith(b"EHLO client.example.net\r\nMAIL FROM:<me@example.net> SIZE=22 X-RET=1\r\n")


# -- bodies -----------------------------------------------------------------------------------------------

BODIES = [
    *(b"", b"\r\n", b".", b".\r\n..\r\nx", b"a\nb\r\nc", b"a\rb\r", b"no end", b"x" * 300_000),
    *(b"x" * (BLOCK - 1) + b"\r\n.\r\nend\r\n", b".\r\n" * 50_000, b"\n\xff\xfe 8-bit\r\n"),
]


def wire(body: bytes) -> bytes:
    """`body` as it goes out, without the final dot; lines one by one, unlike the encoder."""
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b" ").split(b"\n")
    if not lines[-1]:
        del lines[-1]
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)


class Unseekable(io.RawIOBase):
    """A pipe's end, for instance."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


FORMS: dict[str, Callable[[bytes], Message]] = {
    "bytes": lambda body: body,
    "file": io.BytesIO,
    "pipe": Unseekable,
    "pieces": lambda body: [body[i : i + 999] for i in range(0, len(body), 999)] + [b""],
    "generator": lambda body: (body[i : i + 70_000] for i in range(0, len(body), 70_000)),
}


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("form", FORMS)
def test_the_body_arrives_as_it_is(form: str, body: bytes) -> None:
    script = [*EHLO, *ENVELOPE, WaitFor(wire(body) + b".\r\n"), b"250 ok\r\n", *QUIT]
    talk = Talk(script, body=FORMS[form](body))
    output = talk.played.output
    assert output.partition(b"DATA\r\n")[2] == wire(body) + b".\r\nQUIT\r\n"
    if form in ("bytes", "file") or len(body) < BLOCK:
        # RFC 1870: the octets of the message, without those that dot-stuffing adds
        stuffed = wire(body).count(b"\r\n.") + wire(body).startswith(b".")
        eight_bit = b"" if body.isascii() else b" BODY=8BITMIME"
        assert b" SIZE=%d%s\r\n" % (len(wire(body)) - stuffed, eight_bit) in output
    else:
        assert b"SIZE=" not in output and b"BODY=8BITMIME" in output
    assert max(len(data) for _, data in talk.played.writes) < 4 * BLOCK


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_measuring_does_not_depend_on_the_cuts(body: bytes) -> None:
    whole = measure([body])
    for size in (1, 2, 3, 7) if len(body) < 1000 else (999, 4096):
        assert measure(body[i : i + size] for i in range(0, len(body), size)) == whole


def test_a_file_is_sent_from_where_it_stands() -> None:
    file = io.BytesIO(b"skipped\r\n" + BODY)
    file.seek(9)
    talk = Talk([*EHLO, *ENVELOPE, *MESSAGE, *QUIT], body=file)
    assert b"DATA\r\n" + BODY + b".\r\n" in talk.played.output
    assert b"SIZE=22" in talk.played.output


@pytest.mark.parametrize("form", FORMS)
def test_8_bit_goes_to_nobody_without_8bitmime(form: str) -> None:
    body = b"Subject: x\r\n\r\n" + b"x" * 200_000 + b"\xe9"
    plain: list[Action] = [GREETING, WaitFor(b"EHLO"), b"250-x\r\n250 PIPELINING\r\n"]
    script = [*plain, *QUIT] if form in ("bytes", "file") else [*plain, *ENVELOPE]
    talk = Talk(script, body=FORMS[form](body))
    assert talk.replies == ["554 5.6.3 The server does not take 8-bit messages"]
    assert talk.stages == {Stage.LOCAL}
    assert b"\xe9" not in talk.played.output
    assert not talk.played.output.endswith(b".\r\n")


def test_a_message_whose_source_fails_is_none() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise OSError(5, "Input/output error")

    talk = Talk([*EHLO, *ENVELOPE], body=pieces(), fails=OSError)
    assert b"\r\n.\r\n" not in talk.played.output


@pytest.mark.parametrize("wrong", ["text", 5, None])
def test_what_is_no_message_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"encode it|bytes"):
        OutgoingMessage("a@x", ["b@x"], wrong)


@pytest.mark.parametrize("wrong", [io.StringIO("text"), ["text"], [1]])
def test_a_source_of_text_is_refused(wrong: Any) -> None:
    talk = Talk([*EHLO, *ENVELOPE], body=wrong, fails=LocalProtocolError, all_read=False)
    assert "mode 'rb'" in str(talk.played.error)
    assert b"\r\n.\r\n" not in talk.played.output


def run(steps: Coroutine[Any, Any, Any]) -> Any:
    """Step through `steps`, doing what they ask threads to do."""
    answer = None
    while True:
        try:
            operation = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        assert isinstance(operation, Thread)
        answer = operation.function(*operation.arguments)


LONG = b"Subject: x\n\n" + b"x" * 2 * BLOCK


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("body", "known", "in_stream"),
    [
        (b"a\nb", Measure(6, 3, False, False), Measure(6, 3, False, False)),
        (b"", Measure(0, 0, False, False), Measure(0, 0, False, False)),
        (b"\xe9: \n\n", Measure(7, 5, True, True), Measure(7, 5, True, True)),
        (LONG, Measure(131088, 131084, False, False), Measure(None, None, None, False)),
        (LONG + b"\xe9", Measure(131089, 131085, True, False), Measure(None, None, None, False)),
        (b"\r\n\xe9" + LONG, Measure(131091, 131087, True, False), Measure(None, None, True, False)),
    ],
    ids=range(6),
)
def test_what_can_be_measured(form: str, body: bytes, known: Measure, in_stream: Measure) -> None:
    source = MessageSource(FORMS[form](body))
    assert run(source.measure()) == (known if form in ("bytes", "file") else in_stream)
    assert b"".join(iter(lambda: run(source.read()), b"")) == body
    source.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", [0, 1, 2, 100])
def test_a_message_can_be_read_again(form: str, first: int) -> None:
    """Wholly, or as far as the first time went, and more than twice."""
    body = LONG + b"y" * BLOCK + b"end"
    source = MessageSource(FORMS[form](body))
    run(source.measure())
    source.keep()
    for _ in range(first):
        run(source.read())
    for _ in range(3):
        run(source.rewind())
        assert b"".join(iter(lambda: run(source.read()), b"")) == body
    source.close()


@pytest.mark.parametrize(
    ("header", "is_eight_bit"),
    [
        (b"", False),
        (b"A: b\n\n\xe9", False),
        (b"A: b\r\n\r\n\xe9", False),
        (b"\n\xe9", False),
        (b"\r\n\xe9", False),
        (b"A: \xe9\n\n", True),
        (b"A: b\n\r\xe9\n\n", True),
        (b"A: b\r\r\xe9", True),
        (b"\xe9", True),
    ],
)
def test_where_a_header_ends(header: bytes, is_eight_bit: bool) -> None:
    for at in range(len(header) + 1):
        assert measure([header[:at], header[at:]]).eight_bit_header is is_eight_bit
    assert measure([header[i : i + 1] for i in range(len(header))]).eight_bit_header is is_eight_bit


# -- deadlines of the client role (RFC 5321 section 4.5.3.2) ----------------------------------------------

NO_PIPELINING: list[Action] = [GREETING, WaitFor(b"EHLO"), b"250 mx\r\n"]
MAIL: list[Action] = [WaitFor(b"MAIL"), b"250 ok\r\n"]
RCPT: list[Action] = [WaitFor(b"RCPT"), b"250 ok\r\n"]
AUTH_OFFERED: list[Action] = [GREETING, WaitFor(b"EHLO"), b"250-mx\r\n250 AUTH PLAIN\r\n"]

STEPS: list[tuple[str, list[Action], float]] = [
    ("greeting", [], 300),
    ("EHLO", [GREETING], 300),
    ("MAIL", NO_PIPELINING, 300),
    ("RCPT", [*NO_PIPELINING, *MAIL], 300),
    ("DATA", [*NO_PIPELINING, *MAIL, *RCPT], 120),
    ("MAIL", EHLO, 300),
    ("RCPT", [*EHLO, WaitFor(b"DATA"), b"250 ok\r\n"], 300),
    ("DATA", [*EHLO, WaitFor(b"DATA"), b"250 ok\r\n250 ok\r\n"], 120),
    ("the message", [*EHLO, *ENVELOPE], 600),
]
IDS = [f"{name} {'alone' if i < 5 else 'pipelined'}" for i, (name, _, _) in enumerate(STEPS)]


@pytest.mark.parametrize(("name", "before", "seconds"), STEPS, ids=IDS)
@pytest.mark.parametrize("dripping", [False, True], ids=["silent", "dripping"])
def test_deadline(name: str, before: list[Action], seconds: float, dripping: bool) -> None:
    # A byte every 50 seconds extends nothing: SECURITY's limits, "never extended by partial input"
    drops = [action for byte in bytewise(b"250-a reply that never ends") for action in (Advance(50), byte)]
    early = name in ("greeting", "EHLO")
    talk = Talk([*before, *(drops if dripping else ())], fails=ConnectionFailed if early else None, all_read=False)
    assert talk.played.elapsed == pytest.approx(seconds)
    expected = f"within {seconds:g} seconds"
    if early:
        assert expected in str(talk.error) and talk.error.temporary
    else:
        assert talk.replies == [f"451 4.4.2 No answer to {name} {expected}"]
        assert talk.stages == {Stage.CONNECTION}
        assert not talk.result.delivered


def test_deadline_of_a_block() -> None:
    talk = Talk([*EHLO, *ENVELOPE, STALL], body=b"x" * 1_000_000)
    assert talk.played.elapsed == pytest.approx(180 + 5)  # and a moment for the server's last words
    assert talk.replies == ["451 4.4.2 Nothing taken by the server within 180 seconds"]


@pytest.mark.parametrize("words", [[], [b"421 4.4.2 Idle\r\n"]], ids=["silent", "421"])
def test_deadline_of_a_server_that_takes_no_commands(words: list[Action]) -> None:
    talk = Talk([*EHLO, STALL, *words])
    if words:
        assert talk.replies == ["421 4.4.2 Idle"]
    else:
        assert talk.replies == ["451 4.4.2 Nothing taken by the server within 300 seconds"]


def test_a_server_that_is_slow_at_every_step_but_not_too_slow() -> None:
    script: list[Action] = []
    for action in (*EHLO, *ENVELOPE, *MESSAGE):
        script += [Advance(119), action] if isinstance(action, bytes) else [action]
    assert Talk([*script, *QUIT]).result.delivered


def test_nobody_waits_long_for_the_answer_to_quit() -> None:
    talk = Talk([*EHLO, *ENVELOPE, *MESSAGE])
    assert talk.result.delivered
    assert talk.played.elapsed == pytest.approx(10)


def test_deadlines_can_be_lowered() -> None:
    deadlines = ClientDeadlines().at_most(7)
    assert {getattr(deadlines, name) for name in ("connect", "greeting", "message", "quit")} == {7}
    talk = Talk([], replace(CLEAR, deadlines=deadlines), fails=ConnectionFailed)
    assert talk.played.elapsed == pytest.approx(7)


# -- lost connections -------------------------------------------------------------------------------------

WHOLE = [*EHLO, *ENVELOPE, *MESSAGE]


@pytest.mark.parametrize("end", [EOF, RESET], ids=repr)
@pytest.mark.parametrize("steps", range(len(WHOLE)))
def test_a_lost_connection_is_temporary(steps: int, end: Action) -> None:
    began = steps >= len(EHLO)
    talk = Talk([*WHOLE[:steps], end], fails=None if began else ConnectionFailed)
    if began:
        assert {r.reply.code for r in talk.result.recipients} == {451}
        assert talk.stages == {Stage.CONNECTION}
        assert talk.result.temporary and not talk.result.delivered
    else:
        assert talk.error.temporary


@pytest.mark.parametrize("size", range(1, len(b"250 2.0.0 kept\r\n")))
def test_part_of_an_answer_is_no_acceptance(size: int) -> None:
    talk = Talk([*EHLO, *ENVELOPE, WaitFor(b"\r\n.\r\n"), b"250 2.0.0 kept\r\n"[:size], EOF])
    assert talk.replies[0].startswith("451 4.4.2 ")


def test_a_server_that_closes_behind_its_acceptance_has_accepted() -> None:
    assert Talk([*EHLO, *ENVELOPE, *MESSAGE, EOF]).result.delivered


@pytest.mark.parametrize("reply", ["552 5.3.4 Too big", "421 4.3.2 Going down", "451 4.3.1 Full"])
def test_a_refusal_in_the_midst_of_the_message(reply: str) -> None:
    script: list[Action] = [*EHLO, *ENVELOPE, STALL, reply.encode() + b"\r\n", EOF]
    talk = Talk(script, body=b"x" * 1_000_000)
    assert talk.replies == [reply]


def test_an_acceptance_before_the_end_of_the_message_is_none() -> None:
    talk = Talk([*EHLO, *ENVELOPE, STALL, b"250 thanks\r\n", EOF], body=b"x" * 1_000_000)
    assert talk.replies[0].startswith("451 4.5.0 ")
    assert not talk.result.delivered


@pytest.mark.parametrize("step", range(4))
def test_421_at_any_time_is_temporary(step: int) -> None:
    before = [[], EHLO[:2], [*EHLO, WaitFor(b"DATA")], [*EHLO, *ENVELOPE, WaitFor(b"\r\n.\r\n")]][step]
    talk = Talk([*before, b"421 4.3.2 Bye\r\n", EOF], fails=ServerRefused if step < 2 else None, all_read=False)
    if step < 2:
        assert talk.error.temporary and talk.error.reply is not None and talk.error.reply.code == 421
    else:
        assert talk.replies == ["421 4.3.2 Bye"]


@pytest.mark.parametrize(("greeting", "temporary"), [(b"554 No\r\n", False), (b"450 Later\r\n", True)])
def test_a_greeting_that_refuses(greeting: bytes, temporary: bool) -> None:
    talk = Talk([greeting, *QUIT], fails=ServerRefused)
    assert talk.error.temporary is temporary
    assert greeting.decode().strip() in str(talk.error)


def test_a_refused_hello() -> None:
    refused: list[Action] = [WaitFor(b"EHLO"), b"550 No\r\n", WaitFor(b"HELO"), b"550 No\r\n"]
    talk = Talk([GREETING, *refused, *QUIT], fails=ServerRefused)
    assert not talk.error.temporary


# -- TLS --------------------------------------------------------------------------------------------------


def tls(policy: TLSPolicy = TLSPolicy.MUST, **changes: Any) -> ClientSettings:
    return ClientSettings(tls=policy, tls_context=certificates.client_context(), **changes)


def peer_tls(name: str = "mx.example.org") -> PeerTLS:
    return PeerTLS(certificates.server_context(name), server_side=True)


@pytest.mark.parametrize("policy", [TLSPolicy.MAY, TLSPolicy.MUST])
def test_starttls(policy: TLSPolicy) -> None:
    talk = Talk([*STARTTLS, peer_tls(), *EHLO[1:], *ENVELOPE, *MESSAGE, *QUIT], tls(policy))
    assert talk.result.delivered
    assert talk.result.tls is not None and talk.result.tls.protocol == "TLSv1.3"
    assert talk.played.output.count(b"EHLO") == 2
    names = [step.name for step in talk.result.steps]
    assert names[:5] == ["greeting", "EHLO", "STARTTLS", "TLS", "EHLO"]


def test_implicit_tls() -> None:
    talk = Talk([peer_tls(), *EHLO, *ENVELOPE, *MESSAGE, *QUIT], tls(TLSPolicy.IMPLICIT))
    assert talk.result.delivered and talk.result.tls is not None
    assert "STARTTLS" not in talk.result.capabilities


def test_h85_must_without_starttls_is_an_error() -> None:
    talk = Talk([*EHLO, *QUIT], tls(), fails=TLSUnavailable)
    assert "offers no STARTTLS" in str(talk.error) and talk.error.temporary
    assert b"MAIL" not in talk.played.output


def test_h85_must_with_starttls_refused_is_an_error() -> None:
    talk = Talk([*STARTTLS[:4], b"454 4.7.0 Not now\r\n", *QUIT], tls(), fails=TLSUnavailable)
    assert talk.error.reply is not None and talk.error.reply.code == 454
    assert b"MAIL" not in talk.played.output


@pytest.mark.parametrize("offers", [True, False])
def test_may_goes_on_without_tls(offers: bool) -> None:
    begin = [*STARTTLS[:4], b"454 4.7.0 Not now\r\n"] if offers else EHLO
    envelope = ENVELOPE
    talk = Talk([*begin, *envelope, *MESSAGE, *QUIT], tls(TLSPolicy.MAY))
    assert talk.result.delivered and talk.result.tls is None


@pytest.mark.parametrize("policy", [TLSPolicy.MAY, TLSPolicy.MUST, TLSPolicy.IMPLICIT])
@pytest.mark.parametrize("fault", ["name", "chain"])
def test_h85_name_and_chain_are_verified(policy: TLSPolicy, fault: str) -> None:
    begin = [] if policy is TLSPolicy.IMPLICIT else STARTTLS
    settings = tls(policy) if fault == "name" else replace(tls(policy), tls_context=client.client_context())
    name = "other.example.org" if fault == "name" else "mx.example.org"
    talk = Talk([*begin, peer_tls(name)], settings, fails=TLSUnavailable, all_read=False)
    assert "certificate" in str(talk.error)
    assert b"MAIL" not in talk.played.output


def test_another_name_can_be_asked_for() -> None:
    settings = tls(TLSPolicy.IMPLICIT, tls_name="other.example.org")
    talk = Talk([peer_tls("other.example.org"), *EHLO, *ENVELOPE, *MESSAGE, *QUIT], settings)
    assert talk.result.delivered


def test_not_verifying_must_be_asked_for() -> None:
    settings = replace(tls(), tls_context=client.client_context(verify=False))
    talk = Talk([*STARTTLS, peer_tls("other.example.org"), *EHLO[1:], *ENVELOPE, *MESSAGE, *QUIT], settings)
    assert talk.result.tls is not None


def test_our_contexts_are_strict() -> None:
    context = client.client_context()
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_h34_a_stalled_handshake_meets_its_deadline() -> None:
    talk = Talk(STARTTLS, tls(), fails=TLSUnavailable)
    assert talk.played.elapsed == pytest.approx(30)


def test_tls_without_a_context_is_misuse() -> None:
    talk = Talk(STARTTLS, ClientSettings(), fails=LocalProtocolError, all_read=False)
    assert "tls_context" in str(talk.played.error)


@pytest.mark.parametrize("more", [b"250 x\r\n", b"2", b"250-x\r\n250 AUTH PLAIN\r\n"])
def test_h37_bytes_behind_the_answer_to_starttls_are_fatal(more: bytes) -> None:
    talk = Talk([*STARTTLS[:4], b"220 go\r\n" + more], tls(TLSPolicy.MAY), fails=ConnectionFailed)
    assert "behind its answer to STARTTLS" in str(talk.error)
    assert b"MAIL" not in talk.played.output


def test_h37_plain_text_in_place_of_a_handshake_is_fatal() -> None:
    talk = Talk([*STARTTLS, b"250-x\r\n250 AUTH PLAIN\r\n"], tls(TLSPolicy.MAY), fails=TLSUnavailable)
    assert b"MAIL" not in talk.played.output


def test_h37_capabilities_from_before_tls_are_forgotten() -> None:
    before: list[Action] = [GREETING, WaitFor(b"EHLO"), b"250-x\r\n250-STARTTLS\r\n250-SIZE\r\n250 AUTH PLAIN\r\n"]
    script = [*before, *STARTTLS[3:], peer_tls(), WaitFor(b"EHLO"), b"250 x\r\n", *QUIT]
    talk = Talk(script, tls(credentials=USER), fails=AuthenticationRefused)
    assert "offers no AUTH" in str(talk.error)


# -- AUTH -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [TLSPolicy.NONE, TLSPolicy.MAY])
def test_h85_no_credentials_in_clear(policy: TLSPolicy) -> None:
    talk = Talk([*AUTH_OFFERED, *QUIT], tls(policy, credentials=USER), fails=AuthenticationRefused)
    assert "in clear" in str(talk.error) and not talk.error.temporary
    assert b"AUTH" not in talk.played.output


LOGIN: list[Action] = [
    *(WaitFor(b"AUTH LOGIN\r\n"), b"334 VXNlcm5hbWU6\r\n", WaitFor(b"bWU=\r\n"), b"334 UGFzc3dvcmQ6\r\n"),
    WaitFor(b"Y29ycmVjdCBob3JzZQ==\r\n"),
]
PLAIN: list[Action] = [WaitFor(b"AUTH PLAIN AG1lAGNvcnJlY3QgaG9yc2U=\r\n")]
SECRETS = ("correct horse", "Y29ycmVjdCBob3JzZQ==", "AG1lAGNvcnJlY3QgaG9yc2U=")


@pytest.mark.parametrize("mechanism", [None, "PLAIN", "LOGIN", "login"])
def test_auth(mechanism: str | None) -> None:
    credentials = replace(USER, mechanism=mechanism)
    exchange = LOGIN if mechanism and mechanism.upper() == "LOGIN" else PLAIN
    offer: list[Action] = [WaitFor(b"EHLO"), OFFERS + b"250 AUTH LOGIN PLAIN\r\n"]
    script = [peer_tls(), GREETING, *offer, *exchange, b"235 ok\r\n", *ENVELOPE, *MESSAGE, *QUIT]
    talk = Talk(script, tls(TLSPolicy.IMPLICIT, credentials=credentials))
    assert talk.result.delivered
    assert "AUTH" in [step.name for step in talk.result.steps]
    assert not any(secret in line for secret in SECRETS for line in talk.said)  # H48


def test_auth_in_clear_where_it_is_asked_for() -> None:
    settings = replace(CLEAR, credentials=replace(USER, allow_clear=True))
    envelope = [*MAIL, *RCPT, WaitFor(b"DATA"), b"354 go\r\n"]
    talk = Talk([*AUTH_OFFERED, *PLAIN, b"235 ok\r\n", *envelope, *MESSAGE, *QUIT], settings)
    assert talk.result.delivered


@pytest.mark.parametrize(("reply", "temporary"), [(b"535 5.7.8 No\r\n", False), (b"454 4.7.0 Later\r\n", True)])
def test_auth_that_fails(reply: bytes, temporary: bool) -> None:
    settings = replace(CLEAR, credentials=replace(USER, allow_clear=True))
    talk = Talk([*AUTH_OFFERED, *PLAIN, reply, *QUIT], settings, fails=AuthenticationRefused)
    assert talk.error.temporary is temporary
    assert b"MAIL" not in talk.played.output


@pytest.mark.parametrize(
    "echo",
    [
        b"535 AUTH PLAIN AG1lAGNvcnJlY3QgaG9yc2U= is wrong\r\n",
        b"535-no\r\n535 wrong: correct horse\r\n",
        b"AUTH PLAIN AG1lAGNvcnJlY3QgaG9yc2U=\r\n",
        b"421 correct horse\r\n",
    ],
)
def test_h48_secrets_that_a_server_repeats_are_masked(echo: bytes) -> None:
    settings = replace(CLEAR, credentials=replace(USER, allow_clear=True))
    talk = Talk([*AUTH_OFFERED, *PLAIN, echo, *QUIT], settings, fails=SendError, all_read=False)
    for text in (str(talk.error), repr(talk.error), repr(talk.error.reply), *talk.said, repr(settings)):
        assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize("challenge", [b"334 what?\r\n", b"334 d2hhdD8=\r\n"])
def test_a_challenge_that_makes_no_sense_is_cancelled(challenge: bytes) -> None:
    settings = replace(CLEAR, credentials=replace(USER, allow_clear=True))
    script = [*AUTH_OFFERED, *PLAIN, challenge, WaitFor(b"*\r\n"), b"501 Cancelled\r\n", *QUIT]
    talk = Talk(script, settings, fails=AuthenticationRefused)
    assert "challenge" in str(talk.error)
    assert "C: *" in talk.said


def test_an_answer_to_no_command_is_fatal() -> None:
    talk = Talk([GREETING + b"250 hello\r\n"], fails=ConnectionFailed, all_read=False)
    assert "no command" in str(talk.error)


@pytest.mark.parametrize("offered", [b"250 mx\r\n", b"250-mx\r\n250 AUTH GSSAPI XOAUTH2\r\n"])
def test_no_mechanism_in_common(offered: bytes) -> None:
    settings = replace(CLEAR, credentials=replace(USER, allow_clear=True))
    talk = Talk([GREETING, WaitFor(b"EHLO"), offered, *QUIT], settings, fails=AuthenticationRefused)
    assert "none of PLAIN LOGIN" in str(talk.error)


# -- what servers may say, and we may not -----------------------------------------------------------------

HOSTILE = {
    "a line of 1 MB": b"250" + b"-" * 1_000_000 + b"\r\n",
    "300 lines": b"250-x\r\n" * 300 + b"250 x\r\n",
    "another code in the midst": b"250-x\r\n550 x\r\n",
    "a blank line": b"\r\n",
    "no code": b"hello\r\n",
    "a code of its own": b"999 x\r\n",
    "NUL": b"\0" * 100 + b"\r\n",
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "the message"])
def test_h63_a_server_that_breaks_the_protocol(step: str, answer: bytes) -> None:
    before = {"greeting": [], "EHLO": EHLO[:2], "MAIL": [*EHLO, WaitFor(b"DATA")], "the message": [*EHLO, *ENVELOPE]}
    early = step in ("greeting", "EHLO")
    talk = Talk([*before[step], answer, EOF], fails=ConnectionFailed if early else None, all_read=False)
    if early:
        assert talk.error.temporary and "the server sent" in str(talk.error)
    else:
        assert talk.replies[0].startswith("451 4.5.0 The server broke the protocol")
        assert not talk.result.delivered


def test_h62_what_a_server_says_cannot_reach_a_terminal() -> None:
    talk = Talk([b"220 \x1b[31mred\x9b \xff\r\n", *EHLO[1:], *ENVELOPE, *MESSAGE, *QUIT])
    assert all(line.isprintable() for line in talk.said)
    assert talk.said[0].startswith("S: 220 \\x1b[31mred")


def test_the_transcript() -> None:
    talk = Talk([*EHLO, *ENVELOPE, *MESSAGE, *QUIT])
    assert talk.said == [
        "S: 220 mx.example.org ESMTP",
        "C: EHLO [192.0.2.9]",
        *("S: 250-mx.example.org", "S: 250-PIPELINING", "S: 250-8BITMIME", "S: 250-SIZE 2000000"),
        "S: 250 ENHANCEDSTATUSCODES",
        *("C: MAIL FROM:<me@example.net> SIZE=22", "C: RCPT TO:<you@example.org>", "C: DATA"),
        *("S: 250 2.1.0 ok", "S: 250 2.1.5 ok", "S: 354 go"),
        "*: the message, 22 bytes, and its final dot",
        "S: 250 2.0.0 kept",
        *("C: QUIT", "S: 221 bye"),
    ]


CRLF = "x\r\nRSET"


@pytest.mark.parametrize(
    "call",
    [
        lambda: OutgoingMessage(f"{CRLF}@x", ["b@x"], b""),
        lambda: OutgoingMessage("a@x", [f"b@{CRLF}"], b""),
        lambda: OutgoingMessage("a@x", ["b@x\0"], b""),
        lambda: OutgoingMessage("a@x", [], b""),
        lambda: OutgoingMessage("a@x", "b@x", b""),
        lambda: ClientSettings(local_name=CRLF),
        lambda: ClientSettings(mail_options=MailOptions(others=(("X", CRLF),))),
        lambda: Credentials("me", Secret(b"")),
        lambda: Credentials("me\0", Secret(b"x")),
        lambda: Credentials("me", Secret(b"x"), "SPELL"),
        lambda: client.send_message("192.0.2.1", 25, "a@x", ["b@x"], b"", lmtp=True),
    ],
)
def test_h64_arguments_that_cannot_be_sent(call: Callable[[], object]) -> None:
    with pytest.raises(LocalProtocolError):
        call()
