"""QMTP and QMQP: a package that comes in one piece is handled at once, one that comes in several in parts; nobody can
tell, neither the client, nor plugins and backend, nor who reads the log."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.ops import Sleep
from mailfront_io.plugin import Lines, Plugin, Response
from mailfront_io.session import Path
from mailfront_io.spool import Spool
from mailfront_io.testing import Advance, Front, Kept
from tests.proto.test_whole_packages import package, wrapped

Answer = Response | None | Coroutine[Any, Any, Response | None]


def told(text: str) -> Response | None:
    """What an address asks for: ``550-later@x`` is refused for good, by a hook that waits first."""
    return Response(int(text[:3]), f"{text[0]}.1.0 As you say") if text[:3].isdigit() else None


async def later(response: Response | None) -> Response | None:
    await Sleep(1)
    return response


class Told(Plugin):
    """Answers as it is told by addresses and by the message; notes what is called in `calls`."""

    name = "told"
    calls: list[str]

    def _answer(self, what: str, text: str) -> Answer:
        self.calls.append(f"{what} {text}")
        response = told(text)
        return later(response) if "later" in text else response

    def reset(self) -> None:
        self.calls.append("reset")

    def data_start(self, spool: Spool | None) -> Answer:
        return self._answer("data_start", self.session.getenv("START") or "")

    def data_block(self, data: bytes) -> Answer:
        self.calls.append("block")
        what = "451-later" if b"!" in data else "later" if b"?" in data else ""
        return self._answer("data_block", what) if what else None

    def sender(self, path: Path) -> Answer:
        return self._answer("sender", path.address)

    def recipient(self, path: Path) -> Answer:
        return self._answer("recipient", path.address)

    def message_end(self, spool: Spool | None) -> Answer:
        sender = self.session.envelope.sender
        return self._answer("message_end", (sender.address if sender is not None else "").removeprefix("end-"))


class Each(Kept):
    """Answers for each recipient; keeps what it has taken for one of them at least."""

    def message_end(self, spool: Spool | None) -> list[Response]:  # type: ignore[override]
        super().message_end(spool)
        return [
            Response(451, "4.2.2 Full") if "full" in path.address else Response(250, "2.0.0 " + path.address)
            for path in self.session.envelope.recipients
        ]


def play(protocol: str, backend: type[Kept], start: str, pieces: list[bytes]) -> tuple[Any, ...]:
    calls: list[str] = []
    messages: list[Any] = []
    plugin = type("Told", (Told,), {"calls": calls})
    mine = type("Mine", (backend,), {"messages": messages})
    front = Front(plugin, "accept", backend=mine, protocol=protocol, settings={"START": start} if start else {})
    output = front.say(*pieces)
    while "block" in calls:  # how many slices there were is the network's affair
        calls.remove("block")
    return output, front.log, calls, messages


def check(protocol: str, backend: type[Kept], start: str, wire: bytes) -> tuple[Any, ...]:
    whole = play(protocol, backend, start, [wire])
    assert play(protocol, backend, start, [wire[at : at + 1] for at in range(len(wire))]) == whole
    half = len(wire) // 2
    assert play(protocol, backend, start, [wire[:half], wire[half:]]) == whole
    return whole


ADDRESSES = ["a@b.example", "550@x", "450-later@x", "later@x", "full@x", "", "end-550@x", "end-451-later@x", "\udcff@x"]
MESSAGES = [b"", b"text\n", b"two\nlines", b"a\r\nb\r", b"x!y", b"x?y"]
addresses = st.sampled_from(ADDRESSES).map(lambda text: text.encode("utf-8", "surrogateescape"))
envelopes = st.tuples(st.sampled_from(MESSAGES), addresses, st.lists(addresses, min_size=1, max_size=3))


@given(st.sampled_from([Kept, Each]), st.sampled_from(["", "", "", "451", "later"]), st.lists(envelopes, max_size=3))
def test_qmtp(backend: type[Kept], start: str, said: list[tuple[bytes, bytes, list[bytes]]]) -> None:
    wire = b"".join(package(b"\n" + message, sender, *recipients) for message, sender, recipients in said)
    if wire:
        check("qmtp", backend, start, wire)


@given(st.sampled_from([Kept, Each]), st.sampled_from(["", "", "", "451", "later"]), envelopes)
def test_qmqp(backend: type[Kept], start: str, said: tuple[bytes, bytes, list[bytes]]) -> None:
    message, sender, recipients = said
    check("qmqp", backend, start, wrapped(message or b"x", sender, *recipients))


@pytest.mark.parametrize(("protocol", "make"), [("qmtp", package), ("qmqp", wrapped)])
def test_the_order_of_what_happens(protocol: str, make: Callable[..., bytes]) -> None:
    output, log, calls, messages = check(protocol, Kept, "", make(b"\nx\n", b"a@b", b"c@d", b"e@f"))
    assert output == b"24:K2.6.0 Message accepted.," * (2 if protocol == "qmtp" else 1)
    assert log[:3] == ["sender <a@b>", "recipient <c@d>", "recipient <e@f>"]
    assert calls[:6] == ["reset", "data_start ", "sender a@b", "recipient c@d", "recipient e@f", "message_end a@b"]
    assert [message.recipients for message in messages] == [["c@d", "e@f"]]


def test_a_message_has_ended_only_with_its_last_slice() -> None:
    """Where lines get CRLF, what has come may be as long as all of the message was to be before all of it is here."""
    calls: list[bytes] = []

    class Ends(Kept):
        lines = Lines.CRLF

        def data_block(self, data: bytes) -> None:
            calls.append(data)
            super().data_block(data)

        def data_end(self) -> None:
            calls.append(b"end")

    Ends.messages = []
    wire = package(b"\n\n\n\nabc", b"a@b", b"c@d")
    cut = wire.index(b"abc")
    assert Front("accept", backend=Ends, protocol="qmtp").say(wire[:cut], wire[cut:]).startswith(b"24:K")
    assert calls == [b"\r\n" * 3, b"abc", b"end"]


def test_each_package_has_its_time() -> None:
    """Nothing is left of the time of the package before it, which has come in parts, too."""
    one = package(b"\nx", b"a@b", b"c@d")
    first: list[Any] = [one[:4], Advance(170), one[4:6], Advance(170), one[6:]]
    drips: list[Any] = [action for byte in b"some" for action in (Advance(170), bytes([byte]))]
    played = Front("accept", protocol="qmtp").play(
        [*first, Advance(250), b"99", Advance(40), b":", Advance(170), b"\n", *drips, Advance(170)], all_read=False
    )
    assert played.output == b"24:K2.6.0 Message accepted.,36:Z4.4.2 Timed out, closing connection,"
    assert round(played.elapsed) == 340 + 290 + 170 + 600


def test_nor_where_it_begins_with_the_end_of_the_one_before() -> None:
    one = package(b"\nx", b"a@b", b"c@d")
    pause = Advance(170)
    script: list[Any] = [one[:4], pause, one[4:6], pause, one[6:8], pause, one[8:] + one[:2], Advance(120), one[2:]]
    played = Front("accept", protocol="qmtp").play(script)
    assert played.output == b"24:K2.6.0 Message accepted.," * 2


@pytest.mark.parametrize("before", [b"", package(b"\nx", b"a@b", b"c@d")])
def test_a_message_that_has_not_begun_has_no_end(before: bytes) -> None:
    calls: list[str] = []

    class Ends(Kept):
        def data_start(self, spool: Spool | None) -> None:
            super().data_start(spool)
            calls.append("start")

        def data_end(self) -> None:
            calls.append("end")

    Ends.messages = []
    front = Front("accept", backend=Ends, protocol="qmtp", settings={"MAILFRONT_PROFILE": "compat"})
    assert front.say(before + b"4:xabc,").endswith(b"37:ZCannot handle non-LF line terminator,")
    assert calls == (["start", "end"] if before else [])
