"""Harness: the SMTP and LMTP client machine.

The first byte chooses the client (LMTP, TLS from the start) and how the rest is read, the second how what the server
sends is cut, the third what the application does; the rest is the server: either what it sends, whatever it was asked
(`LOOSE`), or its verdicts, a byte for each command (`Server`). What must hold, whatever that is:

* only `RemoteProtocolError` escapes, and once; its text can be shown, and what it attaches is bounded;
* what is held stays below the limits;
* every message has one result for each recipient, and none is delivered without a 2yz to the message itself;
* no CR or LF goes out alone;
* events and output are the same for the bytes in one piece and cut, where the server answers what it was asked. (An
  answer that comes before its command is none; there the cut decides.)
"""

import random
import re
from collections.abc import Callable, Sequence

from fuzz.oracles import MAX_WIRE, check_machine, cut
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl import LoginClient, PlainClient
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.client import SMTPClient
from mailfront_proto.smtp.client_events import ClientEvent, MessageDone, ReadyForBody, ReadyForTLS, ReplyReceived
from mailfront_proto.smtp.client_lines import to_address
from mailfront_proto.smtp.events import ConnectionClosed, Xclient
from mailfront_proto.smtp.parameters import BodyType, MailOptions, Notify, RecipientOptions, Return
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.states import State
from mailfront_proto.testing import Outcome, Player, Raised

LMTP, IN_TLS, LOOSE = 1, 2, 4
"""Bits of the first byte."""
CAPABILITIES = (
    *(b"PIPELINING", b"CHUNKING", b"8BITMIME", b"SMTPUTF8", b"BINARYMIME", b"DSN", b"SIZE 300", b"REQUIRETLS"),
    *(b"STARTTLS", b"AUTH PLAIN LOGIN", b"XCLIENT NAME", b"LIMITS RCPTMAX=2 MAILMAX=4", b"LIMITS RCPTDOMAINMAX=1"),
)
FITTING = {"greeting": b"220 mx\r\n", "DATA": b"354 go\r\n", "STARTTLS": b"220 go\r\n", "XCLIENT": b"220 mx\r\n"}
MAX_VERDICTS = 200
"""Bytes of an input of that kind: each may be a command and its events."""
HELD = 20_000
"""Bytes that the client may hold: 20 lines of 200, a chunk, what the application gives at once, and the objects."""
SECRET = Secret(b"correct horse")
ADDRESSES = ("me@a.example", "b@b.example", '"c d"@c.example', "é@é.example", "postmaster")
OPTIONS = (
    MailOptions(),
    MailOptions(size=100, body=BodyType.EIGHT_BIT_MIME, ret=Return.HEADERS, envid="a+b"),
    MailOptions(body=BodyType.BINARY_MIME),
    MailOptions(smtputf8=True, auth="<>", others=(("X-OWN", "1"),)),
    MailOptions(require_tls=True),
)
WISHES = (RecipientOptions(), RecipientOptions(frozenset([Notify.SUCCESS]), ("rfc822", "x@y")))
PIECES = (b"Subject: x\r\n", b".", b"\n", b"\r", b"\r\n.\r\n", b"x" * 100, b"\xff", b"RSET\r\n")

Action = Callable[[SMTPClient, random.Random], None]


def send_message(client: SMTPClient, dice: random.Random) -> None:
    """A whole message, to so many as the server takes at once."""
    addresses = [to_address(address) for address in dice.sample(ADDRESSES, dice.randint(1, 4))]
    recipients = [(addresses[index], dice.choice(WISHES)) for index in client.batch(addresses)]
    if client.state is State.READY and not recipients:
        client.quit()
        return
    client.send_message(dice.choice(("", *ADDRESSES)), recipients, dice.choice(OPTIONS), chunking=dice.random() < 0.7)


def send_pieces(client: SMTPClient, dice: random.Random) -> None:
    """A message's body, and its end."""
    for _ in range(dice.randint(0, 20)):
        client.send_body(dice.choice(PIECES))
    client.end_of_body()


def pipeline(client: SMTPClient, dice: random.Random) -> None:
    """An envelope by hand."""
    client.mail(dice.choice(ADDRESSES), dice.choice(OPTIONS))
    client.recipient(dice.choice(ADDRESSES), dice.choice(WISHES))
    client.recipient("you@b.example")
    client.data()


def two_chunks(client: SMTPClient, dice: random.Random) -> None:
    """A message by hand."""
    client.bdat(b"x\r\n")
    client.bdat(b"", last=dice.random() < 0.5)


ACTIONS: tuple[Action, ...] = (
    *([send_message] * 6),
    *(pipeline, two_chunks, two_chunks, send_pieces),
    lambda client, dice: client.hello(),
    lambda client, dice: client.starttls(),
    lambda client, dice: client.authenticate(PlainClient("joe", SECRET), allow_clear=True),
    lambda client, dice: client.authenticate(LoginClient("joe", SECRET), allow_clear=True),
    lambda client, dice: client.xclient(Xclient(name="host.example")),
    lambda client, dice: client.mail("a@b"),
    lambda client, dice: client.recipient("a@b"),
    lambda client, dice: client.data(),
    lambda client, dice: client.reset(),
    lambda client, dice: client.noop(),
    lambda client, dice: client.verify("joe"),
)


def new_player(choice: int, seed: int) -> Player[SMTPClient]:
    """A client, and an application that goes on by dice when nothing is unanswered."""
    dice = random.Random(seed)

    def react(client: SMTPClient, event: ClientEvent) -> None:
        if isinstance(event, ReadyForTLS):
            client.tls_established()
        elif isinstance(event, ReadyForBody) and dice.random() < 0.9:
            send_pieces(client, dice)
        for _ in range(30):
            if client.awaiting or client.state is State.CLOSED:
                return
            try:
                dice.choice(ACTIONS)(client, dice)
            except LocalProtocolError:  # out of order, or not offered
                continue

    client = SMTPClient("me", lmtp=bool(choice & LMTP), max_reply_line=200, max_reply_lines=20, chunk_size=64)
    if choice & IN_TLS:
        client.tls_established()
    return Player(client, react, raises=RemoteProtocolError)


class Server:
    """Answers commands by its `verdicts`: a byte below 160 accepts, others refuse, now or for good, and from 200 the
    answer is the rest of the line. Where none is left it has gone."""

    def __init__(self, verdicts: bytes) -> None:
        self._left = verdicts

    def answer(self, verb: str) -> bytes:
        """The answer to a command."""
        verdict, self._left = self._left[0], self._left[1:]
        if verdict >= 200:
            line, end, self._left = self._left.partition(b"\n")
            return line + end
        if verdict >= 160:
            return b"550 no\r\n" if verdict & 1 else b"450 later\r\n"
        if verb in ("EHLO", "LHLO"):
            return self._hello()
        if verb == "AUTH":
            return b"235 yes\r\n" if verdict & 1 else b"334 \r\n"
        return FITTING.get(verb, b"250 ok\r\n")

    def _hello(self) -> bytes:
        lacking, self._left = int.from_bytes(self._left[:2], "big"), self._left[2:]
        lines = [b"mx", *[line for bit, line in enumerate(CAPABILITIES) if not lacking >> bit & 1]]
        return b"".join([b"250-" + line + b"\r\n" for line in lines[:-1]]) + b"250 " + lines[-1] + b"\r\n"

    def has_gone(self) -> bool:
        """Whether it says nothing more."""
        return not self._left


def converse(player: Player[SMTPClient], server: Server, pieces_of: Callable[[bytes], Sequence[bytes]]) -> Outcome:
    """A session: all that is unanswered at a time is answered at once, in the pieces that `pieces_of` makes of it."""
    player.step()
    while not server.has_gone() and not player.ended:
        answers = b"".join(server.answer(verb) for verb in [*player.machine._awaiting] or [""] if not server.has_gone())
        for piece in pieces_of(answers):
            player.receive(piece)
    player.end()
    return player.outcome


def check(data: bytes) -> None:
    """Play one session."""
    if len(data) < 4 or len(data) > (MAX_WIRE if data[0] & LOOSE else MAX_VERDICTS):
        return
    choice, cutting, seed, wire = data[0], data[1], data[2], data[3:]
    if choice & LOOSE:
        outcome = check_machine(lambda: new_player(choice, seed), wire, cutting, held=HELD, invariant=False)
    else:
        outcome = converse(new_player(choice, seed), Server(wire), lambda answers: [answers] if answers else [])
        again = converse(new_player(choice, seed), Server(wire), lambda answers: cut(answers, cutting)[0])
        assert outcome == again, f"whole {outcome}, but cut {again}"
    check_outcome(outcome)


def check_outcome(outcome: Outcome) -> None:
    """What holds however it was cut."""
    assert outcome.ended and isinstance(outcome.events[-1], ConnectionClosed)
    errors = [event.text for event in outcome.events if isinstance(event, Raised)]
    assert len(errors) <= 1 and all(text.isprintable() and len(text) < 400 for text in errors)
    assert SECRET.reveal().decode() not in "".join(errors)
    answers: list[Reply] = []
    for event in outcome.events:
        if isinstance(event, ReplyReceived) and event.command == ".":
            answers.append(event.reply)
        elif isinstance(event, ReadyForBody):
            answers.clear()
        elif isinstance(event, MessageDone):
            assert 1 <= len(event.results) <= 4
            for result in event.results:
                assert not result.delivered or (result.reply in answers and result.reply.code // 100 == 2)
                assert result.delivered or not result.owes_report
            answers.clear()
    if b" BODY=BINARYMIME" not in outcome.output:
        rest = re.sub(rb"BDAT \d+(?: LAST)?\r\n", b"", outcome.output).replace(b"\r\n", b"")
        assert b"\r" not in rest and b"\n" not in rest
