"""The server machine's short ways, for usual lines and for messages in one piece, say what its general ways say.

Bytes that come one by one take the general way, since a short one wants a whole line, or a whole message, at once. So a
session is played twice.
"""

import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfront_proto.sasl import ServerOptions
from mailfront_proto.smtp import COMPAT, DEFAULT, Event, LineEnds, Mail, Profile, Recipient, SMTPServer, State
from mailfront_proto.smtp.addresses import (
    _COMMON,
    COMMON_ADDRESS,
    MAX_COMMON_ADDRESS,
    ORIGINAL,
    STRICT,
    TOLERANT,
    Address,
    AddressSyntax,
    _check_lengths,
    _parse,
    _scan_freely,
    parse_path,
)
from mailfront_proto.smtp.body import DotDecoder, decode_whole
from mailfront_proto.smtp.budgets import Budgets
from mailfront_proto.smtp.server_commands import _RECIPIENT_OR_DATA_LINE, _SENDER_LINE
from mailfront_proto.smtp.states import command_table
from mailfront_proto.testing import byte_by_byte, strategies
from tests.proto.server_script import Outcome, accept_all, play

LOW = replace(
    DEFAULT.limits, message_size=40, recipients=2, errors_in_row=4, idle_commands=6, refused_recipients=3
)
PROFILES = [
    DEFAULT,
    COMPAT,
    replace(DEFAULT, limits=LOW),
    replace(DEFAULT, limits=replace(LOW, command_line=40)),
    replace(DEFAULT, line_ends=LineEnds.REJECT, limits=LOW),
    replace(DEFAULT, line_ends=LineEnds.ACCEPT, enhanced_codes=False, helo_required=False),
    replace(COMPAT, limits=LOW),
]
GOOD = [b"EHLO x\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n", b"x\r\n.\r\n"]
ENVELOPE = [*GOOD[1:3], *GOOD[2:3], *GOOD[2:4]]
ODD = [
    *(b"MAIL FROM:<>\r\n", b"mail from:<a@b.example>\r\n", b"MAIL FROM:<a@b.example> SIZE=9\r\n", b"MAIL FROM:<a@b>\n"),
    *(b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n", b"MAIL FROM:<refused@b>\r\n", b"MAIL\tFROM:<a@b>\r\n"),
    *(b"RCPT TO:<%s@dd>\r\n" % (b"c" * length) for length in (1, 60, 61, 62, 300)),
    *(b"RCPT TO:<>\r\n", b"RCPT TO:<c@d>x\r\n", b"RCPT TO:<c@d>\r\r\n", b"RCPT TO:<refused@d>\r\n"),
    *(b"Rcpt tO:<c@d> \r\n", b"RCPT  TO:<c@d>\r\n"),
    *(b"data\r\n", b"DATA x\r\n", b"DATA \r\n", b"DATA\n", b"BDAT 3\r\nabc", b"BDAT 3 LAST\r\nabc"),
    *(b"MAIL FROM:<%s@b>\r\n" % (b"a" * length) for length in (30, 62, 63, 65)),
    *(b"RSET\r\n", b"NOOP\r\n", b"XYZZY\r\n", b"\r\n", b"STARTTLS\r\n", b"QUIT\r\n"),
    *(b"AUTH PLAIN x\r\n", b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"),
    *(b".\r\n", b"..\r\n.\r\n", b".x\r\n.\r\n", b"x\ny\r\n.\r\n", b"x\ry\r\n.\r\n", b"x\r\n.y\r\n.\r\n"),
    *(b"x\n.\nNOOP\r\n", b"x\n\r.\nNOOP\r\n"),
    *(b"%s\r\n.\r\n" % (b"z" * length) for length in (37, 38, 39, 40, 60)),
]


def answer(machine: SMTPServer, event: Event) -> None:
    """Addresses tell what becomes of them."""
    if isinstance(event, Mail | Recipient) and event.address.local_part == b"refused":
        machine.reply(550, "5.1.1 No")
    else:
        accept_all(machine, event)


def played(profile: Profile, lmtp: bool, lf: bool, vendor: str, pieces: list[list[bytes]]) -> tuple[Outcome, object]:
    """What comes of a session, and what the machine keeps of it."""
    machine = SMTPServer("mx.example.org", profile, lmtp=lmtp, lf_bodies=lf)
    machine.extensions |= {"BINARYMIME", "CHUNKING"} & profile.extensions
    machine.sasl = ServerOptions(("PLAIN",))
    if vendor:
        machine.register_command(vendor)
    outcome = play(machine, pieces, answer)
    budgets = machine._budgets
    kept = {name: getattr(budgets, name) for name, count in vars(Budgets).items() if isinstance(count, int)}
    assert len(kept) == 7
    return outcome, (kept, machine.state, machine._transaction.recipients, machine._secrets_may_follow)


def check(profile: Profile, lmtp: bool, lf: bool, vendor: str, words: list[bytes], at_once: bool = False) -> None:
    """Play `words` line by line, or all in one piece, and byte by byte."""
    if lmtp:
        words = [word.replace(b"EHLO", b"LHLO") for word in words]
    data = b"".join(words)
    outcome, kept = played(profile, lmtp, lf, vendor, [[data] if at_once else words])
    expected, expected_kept = played(profile, lmtp, lf, vendor, byte_by_byte([data]))
    assert outcome.events == expected.events
    assert outcome.output == expected.output
    assert kept == expected_kept


@pytest.mark.parametrize("lf", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
def test_an_odd_line_anywhere_in_a_usual_session(profile: Profile, lf: bool) -> None:
    for odd in ODD:
        for after in range(1, len(GOOD)):
            check(profile, False, lf, "", [*GOOD[:after], odd, *GOOD[after:], *ENVELOPE, b"XYZZY\r\n"])


groups = st.one_of(
    st.integers(1, 5).map(lambda n: GOOD[:n]),
    st.integers(2, 5).map(lambda n: GOOD[1:n]),
    st.sampled_from(ODD).map(lambda word: [word]),
)


@given(
    st.sampled_from(PROFILES),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "", "MAIL", "RCPT", "DATA", "XOTHER"]),
    st.lists(groups, min_size=1, max_size=8),
    st.booleans(),
)
def test_any_session(
    profile: Profile, lmtp: bool, lf: bool, vendor: str, groups: list[list[bytes]], at_once: bool
) -> None:
    check(profile, lmtp, lf, vendor, [word for group in groups for word in group], at_once)


class Watched(SMTPServer):
    """Says which lines went the general way."""

    general: list[bytes]

    def _command(self, raw_verb: bytes, argument: bytes) -> Event | None:
        self.general.append((raw_verb + b" " + argument).rstrip(b" ") + b"\r\n")
        return super()._command(raw_verb, argument)


def watched(profile: Profile = DEFAULT) -> Watched:
    machine = Watched("mx.example.org", profile)
    machine.general = []
    return machine


@pytest.mark.parametrize("profile", [DEFAULT, replace(DEFAULT, limits=LOW)])
def test_usual_lines_do_take_the_short_way(profile: Profile) -> None:
    machine = watched(profile)
    play(machine, [GOOD, GOOD[1:], [b"".join(GOOD[1:])], [b"MAIL FROM:<>\r\n"]], eof=False)
    assert machine.general == [b"EHLO x\r\n"]
    assert machine.state is State.MAIL


def test_behind_an_error_the_next_command_goes_the_general_way() -> None:
    machine = watched()
    play(machine, [[GOOD[0], b"XYZZY\r\n", *GOOD[1:]]], eof=False)
    assert machine.general == [GOOD[0], b"XYZZY\r\n", GOOD[1]]
    assert machine._budgets.errors_in_row == 0


def test_no_usual_line_goes_past_a_registered_command() -> None:
    machine = watched()
    play(machine, [GOOD[:1]], eof=False)
    machine.register_command("XOTHER")
    play(machine, [GOOD[1:]], eof=False)
    machine.unregister_command("XOTHER")
    play(machine, [GOOD[1:3]], eof=False)
    assert machine.general == [*GOOD[:4], GOOD[1]]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("lmtp", [False, True])
def test_the_order_of_the_short_ways_is_that_of_the_table(profile: Profile, lmtp: bool) -> None:
    order = command_table(profile, lmtp)
    assert order[State.READY, "MAIL"] is State.MAIL
    assert order[State.MAIL, "RCPT"] is order[State.RECIPIENTS, "RCPT"] is State.RECIPIENTS
    assert order[State.RECIPIENTS, "DATA"] is State.BODY


# -- messages --------------------------------------------------------------------------------------------

END = b"\r\n.\r\n"
WORDS = [b"\r\n", b"\r", b"\n", b".", b"x", b"text", b"\r\n.", b"\r\n..", b"\r\n.\r", b"\n.\n", b"\n\r.\n"]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join), st.sampled_from(LineEnds), st.booleans())
@example(b"", LineEnds.NORMALIZE, False)
@example(b"x\n.\ny", LineEnds.ACCEPT, True)
def test_a_message_in_one_piece(text: bytes, line_ends: LineEnds, lf: bool) -> None:
    data = (text + END).partition(END)[0] + END
    whole = decode_whole(b"DATA" + data + b"behind", 4, lf)
    decoder = DotDecoder(line_ends, lf)
    expected, rest = decoder.feed(data)
    if whole is not None:
        assert whole == (expected, len(data)) and rest == b""
        assert decoder.size == len(data) - 3 and not decoder.has_bare_line_ends
    else:
        assert data[:1] == b"." or b"\n." in data[:-3] or decoder.has_bare_line_ends or rest
    assert decode_whole(data[:-1], 0, lf) is None


# -- addresses -------------------------------------------------------------------------------------------

arguments = st.one_of(
    strategies.strict_addresses().map(lambda address: address.path()),
    strategies.hostile_bytes([b"<", b">", b"a@b", b"a@b-c.d", b"-", b".", b"_", b"SIZE=1"], max_words=6).map(
        lambda text: b"<" + text + b">"
    ),
    st.text("a.@<>- ", max_size=12).map(lambda text: f"<{text}>".encode()),
)


@given(arguments, st.sampled_from(["", " ", " SIZE=1", "  A  B ", "x"]), st.sampled_from([STRICT, TOLERANT, ORIGINAL]))
@example(b"<>", "", ORIGINAL)
@example(b"<" + b"a" * 64 + b"@b>", "", STRICT)
@example(b"<" + b"a" * 65 + b"@b>", "", STRICT)
def test_the_common_address_is_read_alike(path: bytes, behind: str, syntax: AddressSyntax) -> None:
    """By the pattern for the line, by that for the argument, and by the reader for all addresses."""
    for keyword, pattern in ((b"FROM", _SENDER_LINE), (b"TO", _RECIPIENT_OR_DATA_LINE)):
        argument = keyword + b":" + path + behind.encode()
        line = pattern.match((b"MAIL " if keyword == b"FROM" else b"RCPT ") + argument + b"\r\n", 0)
        if line is not None:
            found, raw = line.groups()
            assert found == argument
            if len(raw) <= MAX_COMMON_ADDRESS:
                assert parse_path(argument, keyword, syntax) == (Address(raw), b"")
        if _COMMON[keyword].match(argument):
            raw, rest = _scan_freely(argument) if syntax.free_form else _parse(argument, keyword, syntax)
            if len(raw) <= MAX_COMMON_ADDRESS or syntax.free_form:
                address, left = parse_path(argument, keyword, syntax)
                assert address == Address(raw)
                assert left.rstrip(b" ") == rest.rstrip(b" ")


def test_a_common_address_of_that_length_is_within_the_lowest_limits() -> None:
    lowest = AddressSyntax()
    for local in range(1, MAX_COMMON_ADDRESS - 1):
        raw = b"a" * local + b"@" + b"b" * (MAX_COMMON_ADDRESS - 1 - local)
        assert len(raw) == MAX_COMMON_ADDRESS and re.fullmatch(COMMON_ADDRESS, raw)
        assert _parse(b"FROM:<" + raw + b">", b"FROM", lowest) == (raw, b"")
        _check_lengths(raw, b"FROM", lowest)
