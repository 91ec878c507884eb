"""Netstrings, QMTP and QMQP: H72; and H24, H52, H60, H92 as they concern these."""

from collections.abc import Callable

import pytest

from mailfront_proto.netstring import encode_netstring
from mailfront_proto.qmqp import QMQPServer
from mailfront_proto.qmtp import (
    COMPAT,
    DEFAULT,
    ConnectionClosed,
    MessageEnd,
    Profile,
    QMTPServer,
    Recipient,
    Reply,
    Sender,
)
from mailfront_proto.qmtp.package import PackageServer
from mailfront_proto.testing import Outcome, Player, accept, assert_chunk_invariant
from tests.proto.package_script import responses

Kind = Callable[[Profile], PackageServer]
KINDS = pytest.mark.parametrize("kind", [QMTPServer, QMQPServer], ids=["qmtp", "qmqp"])
PROFILES = pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])


def package(kind: Kind, message: bytes, sender: bytes, *recipients: bytes) -> bytes:
    listed = b"".join(map(encode_netstring, recipients))
    if kind is QMTPServer:
        return encode_netstring(b"\n" + message) + encode_netstring(sender) + encode_netstring(listed)
    return encode_netstring(encode_netstring(message) + encode_netstring(sender) + listed)


def outcome_of(kind: Kind, profile: Profile, wire: bytes) -> Outcome:
    return assert_chunk_invariant(lambda: Player(kind(profile), accept), [wire])


LENGTHS = [b":", b"x:", b"01:", b"-1:", b"+1:", b" 1:", b"1 :", b"1_0:", b"1e3:", b"0x1:", b"\xb2:", b"\xd9\xa1:"]
LENGTHS += [b"9" * 30 + b":", b"9" * 300, b"99999999999:", b"18446744073709551617:"]


@KINDS
@pytest.mark.parametrize("length", LENGTHS)
def test_h72_lengths_that_are_none(kind: Kind, length: bytes) -> None:
    good = package(kind, b"x\n", b"a@b", b"c@d")
    for at in range(len(good)):
        if good[at : at + 1].isdigit() and (at == 0 or good[at - 1 : at] in (b",", b":")):
            colon = good.index(b":", at)
            outcome = outcome_of(kind, DEFAULT, good[:at] + length + good[colon + 1 :])
            assert "MessageEnd" not in outcome.kinds()
            closed = outcome.events[-1]
            assert isinstance(closed, ConnectionClosed) and closed.reply is not None and closed.reply.code == 451
            assert [response[:1] for response in responses(outcome.output)] == [b"Z"]


@KINDS
@PROFILES
def test_h72_eof_at_every_point_delivers_nothing(kind: Kind, profile: Profile) -> None:
    good = package(kind, b"x\n", b"a@b", b"c@d", b"e@f")
    for at in range(len(good)):
        outcome = outcome_of(kind, profile, good[:at])
        assert "MessageEnd" not in outcome.kinds()
        closed = outcome.events[-1]
        assert isinstance(closed, ConnectionClosed)
        begun = "MessageStart" in outcome.kinds()
        assert closed.in_message or not begun
        assert (closed.reply is None) is (outcome.output == b"")
    assert "MessageEnd" in outcome_of(kind, profile, good).kinds()


@KINDS
@PROFILES
def test_h72_a_missing_comma_delivers_nothing(kind: Kind, profile: Profile) -> None:
    good = package(kind, b"x\n", b"a@b", b"c@d")
    for at in (i for i in range(len(good)) if good[i : i + 1] == b","):
        outcome = outcome_of(kind, profile, good[:at] + b";" + good[at + 1 :])
        assert "MessageEnd" not in outcome.kinds()
        assert [response[:1] for response in responses(outcome.output)] == [b"Z"]


def test_h72_inner_ones_that_are_longer_than_the_outer_one() -> None:
    for wire in (
        b"3:\nx\n,3:a@b,5:3:c@d,",
        b"3:\nx\n,3:a@b,6:4:c@d,,",
        b"3:\nx\n,3:a@b,6:9999999999:c@d,,",
    ):
        assert "MessageEnd" not in outcome_of(QMTPServer, DEFAULT, wire).kinds()
    inner = b"2:x\n,3:a@b,3:c@d,"
    for length in [*range(len(inner)), len(inner) + 1, 9_999_999_999]:
        outcome = outcome_of(QMQPServer, DEFAULT, b"%d:%b," % (length, inner))
        assert "MessageEnd" not in outcome.kinds()


@KINDS
@PROFILES
@pytest.mark.parametrize("byte", [b"\0", b"\r", b"\n", b"\t", b"\x1b", b"\x7f"])
def test_h52_control_bytes_in_addresses_are_refused(kind: Kind, profile: Profile, byte: bytes) -> None:
    bad = b"a" + byte + b"@b"
    refusal = Reply(501, "5.5.2 Syntax error in address parameter.")
    outcome = outcome_of(kind, profile, package(kind, b"x\n", bad, b"c@d"))
    assert [event.refusal for event in outcome.events if isinstance(event, Sender)] == [refusal]
    assert responses(outcome.output) == [b"D5.5.2 Syntax error in address parameter."]
    outcome = outcome_of(kind, profile, package(kind, b"x\n", b"a@b", bad))
    assert [event.refusal for event in outcome.events if isinstance(event, Recipient)] == [refusal]
    assert responses(outcome.output) == [b"D5.5.2 Syntax error in address parameter."]
    assert "MessageEnd" not in outcome.kinds()
    machine = kind(profile)
    player = Player(machine, accept).play([[package(kind, b"x\n", b"a@b", b"c@d", bad)]])
    accepted = [event for event in player.outcome.events if isinstance(event, MessageEnd)]
    assert accepted == ([MessageEnd(1)] if kind is QMTPServer and profile is DEFAULT else [])


@KINDS
def test_h60_a_response_is_one_netstring(kind: Kind) -> None:
    def react(machine: PackageServer, event: object) -> None:
        if isinstance(event, MessageEnd):
            machine.reply(550, "no\r\n1:K,\0\x1b[2J\x7f\x85\ud800\udcff")
        else:
            accept(machine, event)

    outcome = Player(kind(DEFAULT), react).play([[package(kind, b"x\n", b"a@b", b"c@d")]]).outcome
    assert responses(outcome.output) == [b"Dno?\n1:K,??[2J???\xff"]


@KINDS
@PROFILES
def test_h24_a_reset_in_the_middle_of_anything_is_an_event(kind: Kind, profile: Profile) -> None:
    good = package(kind, b"x\n", b"a@b", b"c@d")
    for at in range(1, len(good)):
        player = Player(kind(profile), accept).play([[good[:at]]], eof=False)
        player.machine.abort()
        player.step()
        closed = player.outcome.events[-1]
        assert isinstance(closed, ConnectionClosed) and closed.reason == "aborted"
        assert closed.in_message or "MessageStart" not in player.outcome.kinds()
