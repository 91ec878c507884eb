"""Random SMTP sessions, played in step through our server machine and through a server that is not ours.

Replies are compared one by one: the code, and the enhanced code where both have one. A `Difference` says which of them
differ, and why; every other is a failure. Where one side has accepted what the other has refused the session ends,
since the two stand in different states from there on.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hypothesis import strategies as st

from mailfront_proto.smtp import DEFAULT, Body, Data, Event, MessageEnd, Profile, SMTPServer
from mailfront_proto.testing import Player, strategies


@dataclass(frozen=True)
class Step:
    """What the client sends at once: `lines`, each of which is answered. Behind a 354 to the last one it sends `body`.
    `chunk`: bytes that follow the line at once (BDAT)."""

    lines: tuple[bytes, ...]
    body: bytes = b".\r\n"
    chunk: bytes = b""

    @property
    def wire(self) -> bytes:
        return b"".join(line + b"\r\n" for line in self.lines) + self.chunk


Session = Sequence[Step]


@dataclass(frozen=True)
class Difference:
    """`line` (a pattern for the whole of what was answered; ``.`` for a message) is answered with `ours` by us, and
    with `theirs` by them (patterns for code and enhanced code, as in ``250 2.1.0``). `example`: lines that show it,
    the last of them; `why`: for people. `after`: a pattern; such a line has been answered before. `ends`: one of the
    two closes then."""

    why: str
    line: bytes
    ours: str
    theirs: str
    example: tuple[bytes, ...]
    after: bytes = b""
    ends: bool = False

    def explains(self, line: bytes, ours: str, theirs: str, before: Sequence[bytes] = ()) -> bool:
        """Whether this is what was seen."""
        return (
            _matches(self.line, line)
            and re.fullmatch(self.ours, ours) is not None
            and re.fullmatch(self.theirs, theirs) is not None
            and (not self.after or any(_matches(self.after, earlier) for earlier in before))
        )


def _matches(pattern: bytes, line: bytes) -> bool:
    return re.fullmatch(pattern, line, re.IGNORECASE | re.DOTALL) is not None


class Peer(Protocol):
    """One session with a server."""

    def say(self, data: bytes, replies: int) -> list[str]:
        """Send `data`; the next `replies` replies, each as ``CODE`` or ``CODE ENHANCED``; fewer if it closes."""


class Ours:
    """Our server machine, which accepts everything. `extensions`: what it offers besides the usual ones. `messages`:
    what it has accepted."""

    def __init__(self, profile: Profile = DEFAULT, extensions: Sequence[str] = ()) -> None:
        self.messages: list[bytes] = []
        self._body = b""
        machine = SMTPServer("mx.example.org", profile)
        machine.extensions = machine.extensions.union(extensions)
        self._player = Player(machine, self._react)
        self._player.step()
        self._taken = 1  # replies; the greeting
        self.greeting = read_replies(self._player.outcome.output)

    def _react(self, machine: SMTPServer, event: Event) -> None:
        if isinstance(event, Data):
            self._body = b""
        elif isinstance(event, Body):
            self._body += event.data
        elif isinstance(event, MessageEnd):
            self.messages.append(self._body)
        if machine.answer_owed:
            machine.accept()

    def say(self, data: bytes, replies: int) -> list[str]:
        self._player.receive(data)
        found = read_replies(self._player.outcome.output)[self._taken :]
        assert len(found) == replies or self._player.ended, (data, found)
        self._taken += len(found)
        return found


def read_replies(output: bytes) -> list[str]:
    """The codes of whole replies."""
    found = []
    for line in output.split(b"\r\n")[:-1]:
        match = re.match(rb"(\d{3})([ -])(\d\.\d{1,3}\.\d{1,3} )?", line)
        assert match is not None, line
        if match[2] == b" " or len(line) == 3:
            found.append((match[1] + b" " + (match[3] or b"")).decode().strip())
    return found


def compare(session: Session, ours: Peer, theirs: Peer, differences: Sequence[Difference]) -> Iterator[Difference]:
    """Play `session`; the differences that were met. One that is not explained is an AssertionError."""
    history: list[tuple[bytes, str, str]] = []

    def check(line: bytes, our: str, their: str) -> Iterator[Difference]:
        history.append((line, our, their))
        if our == their or (our[:3] == their[:3] and (" " in our) != (" " in their)):
            return  # where one has no enhanced code the other's is not compared
        before = [line for line, _, _ in history[:-1]]
        explained = [difference for difference in differences if difference.explains(line, our, their, before)]
        assert explained, f"not explained: {history}"
        yield explained[0]

    for step in session:
        said = ours.say(step.wire, len(step.lines)), theirs.say(step.wire, len(step.lines))
        for line, our, their in zip(step.lines, *said, strict=False):
            found = list(check(line, our, their))
            yield from found
            if our[:1] != their[:1] or any(difference.ends for difference in found):
                return
        assert len(said[0]) == len(said[1]), f"one has closed: {history} {said}"
        if len(said[0]) < len(step.lines):
            return
        if said[0][-1] == said[1][-1] == "354":
            [our], [their] = ours.say(step.body, 1), theirs.say(step.body, 1)
            yield from check(b".", our, their)
            if our[:1] != their[:1]:
                return


def check_example(difference: Difference, ours: Peer, theirs: Peer) -> None:
    """Play the example of `difference`: its last line is answered as it says, and not by the same on both sides."""
    for line in difference.example:
        step = Step((line,), chunk=b"x" * 5 if line.upper().startswith(b"BDAT 5") else b"")
        [our], [their] = ours.say(step.wire, 1), theirs.say(step.wire, 1)
        if our == their == "354":
            [our], [their] = ours.say(b"Subject: x\r\n.\r\n", 1), theirs.say(b"Subject: x\r\n.\r\n", 1)
    before, last = difference.example[:-1], difference.example[-1]
    answered = b"." if last == b"DATA" and our[:1] == "2" else last
    assert difference.explains(answered, our, their, before), (our, their)
    assert our != their


# -- random sessions -----------------------------------------------------------------------------------------

HOSTS = (b"client.example", b"[192.0.2.1]", b"a-b.c.example")
ODD_HELLOS = (b"EHLO", b"HELO", b"EHLO a b", b"HELO -", b"EHLO [192.0.2.1", b"LHLO x", b"ehlo client.example")
SENDERS = (b"<a@a.example>", b"<>", b'<"a b"@a.example>', b"<@r.example:a@a.example>")
ODD_PATHS = (
    b"", b"<", b"<a", b"a@a.example>", b"<a@>", b"<@a.example>", b"<a b@a.example>", b"a@a.example", b" <a@a.example>",
    b"<a@a.example> ", b"<a@a.example", b"<a@@a.example>", b'<"a@a.example>', b"<a@[192.0.2.1]>", b"<postmaster>",
    b"<a@a..example>", b"<a@-a.example>", b"<.a@a.example>", b"<a.@a.example>", b"<" + b"a" * 65 + b"@a.example>",
    b"<a@" + b"a" * 64 + b".example>",
    b"<a@a_b.example>", b"<a@a.example>x", b"<\xc3\xa4@a.example>", b"<a@a.example\\>",
)  # fmt: skip
OTHERS = (
    b"RSET", b"RSET x", b"NOOP", b"NOOP x y", b"noop", b"VRFY a", b"VRFY", b"VRFY a@a.example", b"EXPN list", b"HELP",
    b"HELP MAIL", b"XYZZY", b"", b" ", b" NOOP", b"NOOP ", b"MAIL", b"RCPT", b"MAIL FROM", b"MAIL TO:<a@b.example>",
    b"RCPT FROM:<a@b.example>", b"DATA x", b"AUTH", b"AUTH PLAIN AGEAYg==", b"STARTTLS", b"mail from:<a@a.example>",
    b"QUIT x", b"DATA", b"NOOP " + b"x" * 600,
)  # fmt: skip


def sessions(mail: Sequence[bytes], rcpt: Sequence[bytes], chunks: bool = False) -> st.SearchStrategy[Session]:
    """Sessions with errors in them, some of it pipelined. `mail`, `rcpt`: parameters, good and bad. `chunks`: with
    BDAT."""
    hello = st.one_of(
        st.builds(lambda verb, host: verb + b" " + host, st.sampled_from([b"EHLO", b"HELO"]), st.sampled_from(HOSTS)),
        st.sampled_from(ODD_HELLOS),
    )

    def with_some(parameters: Sequence[bytes]) -> st.SearchStrategy[bytes]:
        some = st.lists(st.sampled_from(parameters), max_size=2)
        return st.one_of(st.just([]), some).map(lambda words: b"".join(b" " + word for word in words))

    good_path = st.one_of(st.sampled_from(SENDERS), st.just(b"<a@a.example>"))
    sender = st.one_of(good_path, good_path, good_path, st.sampled_from(ODD_PATHS))
    recipient = st.one_of(
        st.just(b"<b@b.example>"), strategies.mailboxes().map(lambda a: b"<" + a.raw + b">"), st.sampled_from(ODD_PATHS)
    )
    mails = st.builds(lambda path, more: b"MAIL FROM:" + path + more, sender, with_some(mail))
    rcpts = st.builds(lambda path, more: b"RCPT TO:" + path + more, recipient, with_some(rcpt))
    good_rcpt = st.just(b"RCPT TO:<b@b.example>")
    body = st.lists(
        st.sampled_from([b"", b".", b"..", b"...", b".x", b"x", b"Subject: x", b"\xff\xfe", b"x" * 900, b"QUIT"]),
        max_size=6,
    ).map(_stuffed)
    data = body.map(lambda body: Step((b"DATA",), body))
    single = st.one_of(mails, mails, rcpts, good_rcpt, hello, st.sampled_from(OTHERS)).map(lambda line: Step((line,)))
    group = st.builds(
        lambda lines, last, body: Step((*lines, *last), body),
        st.lists(st.one_of(mails, good_rcpt, rcpts, st.just(b"RSET")), min_size=1, max_size=4),
        st.sampled_from([(), (b"DATA",), (b"NOOP",)]),
        body,
    )
    good_mail = st.one_of(st.just(b"MAIL FROM:<a@a.example>"), good_path.map(lambda path: b"MAIL FROM:" + path))
    head = st.builds(lambda mail, rcpts: [mail, *rcpts], good_mail, st.lists(good_rcpt, min_size=1, max_size=2))
    transactions = [
        st.builds(lambda lines, body: [*(Step((line,)) for line in lines), Step((b"DATA",), body)], head, body),
        st.builds(lambda lines, body: [Step((*lines, b"DATA"), body)], head, body),
    ]
    singles = [single, group, data]
    if chunks:
        one = st.binary(min_size=1, max_size=30).map(lambda chunk: Step((b"BDAT %d" % len(chunk),), chunk=chunk))
        last = st.binary(max_size=30).map(lambda chunk: Step((b"BDAT %d LAST" % len(chunk),), chunk=chunk))
        bad = st.sampled_from([b"BDAT", b"BDAT x", b"BDAT -1", b"BDAT 0 LAST x", b"BDAT 0"])
        singles += [one, last, bad.map(lambda line: Step((line,)))]
        transactions.append(
            st.builds(
                lambda lines, chunks, last: [Step(tuple(lines)), *chunks, last], head, st.lists(one, max_size=3), last
            )
        )
    block = st.one_of(*(kind.map(lambda step: [step]) for kind in singles), *transactions, *transactions)
    hello_first = st.sampled_from([[Step((b"EHLO client.example",))], [Step((b"HELO client.example",))], []])
    blocks = st.lists(block, max_size=8).map(lambda found: [step for steps in found for step in steps])
    return st.builds(lambda first, rest: [*first, *rest], hello_first, blocks)


def _stuffed(lines: Sequence[bytes]) -> bytes:
    """A message on the wire, with its end."""
    return b"".join((b"." + line if line[:1] == b"." else line) + b"\r\n" for line in lines) + b".\r\n"
