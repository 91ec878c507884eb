"""add-received: whatever is known of a connection, the lines are a header that can be read back."""

import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.ops import Connection
from mailfront_io.plugins.add_received import AddReceived
from mailfront_io.session import Session
from mailfront_io.testing import VirtualClock
from mailfront_proto.smtp.profile import COMPAT, DEFAULT, Profile

_HOST = st.one_of(st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9-]{1,8}){0,3}", fullmatch=True), st.just("Exämple.example"))
_IP = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
_ODD = st.sampled_from(["", "a\nX-Injected: yes", "a\r\nb", "\0", "\x1b[2J", "a\x85b"])
"""What counts as unknown: nothing, and control bytes."""

_RECEIVED = re.compile(
    r"Received: from (?P<helo>\S+)(?: \((?P<host>[^\s\[\]]+)?(?:(?<!\() )?(?:\[(?P<ip>\S+)\])?\))?\n"
    r"  by (?P<by>\S+)(?: \(\[(?P<local_ip>\S+)\]\))?\n"
    r"  with (?P<protocol>\S+) via (?P<link>\S+); (?P<date>.+)\n\Z"
)
_FIXUP = re.compile(
    r"Received: from (\S+) \((\S+) \[(\S+)\]\)\n  by (\S+) \(\[(\S+)\]\); (.+)\n\Z"
)  # fmt: skip


def maybe(known: st.SearchStrategy[str]) -> st.SearchStrategy[str | None]:
    """A fact that may be unknown."""
    return st.one_of(st.none(), _ODD, known, known)


def shown(ip: str | None, link: str, profile: Profile) -> str | None:
    """An address as a trace line has it (RFC 5321 section 4.1.3)."""
    if ip is None:
        return None
    is_six = link.upper() == "TCP6" if profile is COMPAT else ":" in ip
    return f"IPv6:{ip}" if is_six else ip


def lines_of(session: Session) -> list[str]:
    """The header fields that are added, each with its continuation lines."""
    AddReceived(session).data_start(None)
    added = b"".join(session.added_lines).decode("utf-8")
    assert not added or added.endswith("\n")
    return re.findall(r"[^\n]*\n(?:[ \t][^\n]*\n)*", added)


@given(
    link=st.sampled_from(["TCP", "TCP6", "SSL", "tcp6"]),
    facts=st.fixed_dictionaries(
        {"REMOTEHOST": maybe(_HOST), "REMOTEIP": maybe(_IP), "LOCALHOST": maybe(_HOST), "LOCALIP": maybe(_IP)}
    ),
    helo=st.one_of(st.none(), _HOST),
    time=st.floats(0, 4e9),
    protocol=st.sampled_from(["SMTP", "ESMTP", "LMTP", "QMTP"]),
    profile=st.sampled_from([DEFAULT, COMPAT]),
)
def test_a_trace_line_can_be_read_back(
    link: str, facts: dict[str, str | None], helo: str | None, time: float, protocol: str, profile: Profile
) -> None:
    env = {"PROTO": link} | {link + name: value for name, value in facts.items() if value is not None}
    session = Session(Connection(VirtualClock(time), None, None), env, print, profile)
    session.protocol_name = protocol
    if helo is not None:
        session.strings["helo_domain"] = helo
    (line,) = lines_of(session)
    found = _RECEIVED.match(line)
    assert found is not None, line
    known = {n: v if v and not re.search(r"[\x00-\x1f\x7f-\x9f]", v) else None for n, v in facts.items()}
    ip, local_ip = shown(known["REMOTEIP"], link, profile), shown(known["LOCALIP"], link, profile)
    assert found.groupdict() | {"date": ""} == {
        "helo": helo or known["REMOTEHOST"] or ip or "unknown",
        "host": known["REMOTEHOST"],
        "ip": ip,
        "by": known["LOCALHOST"] or local_ip or "unknown",
        "local_ip": local_ip,
        "protocol": protocol,
        "link": link,
        "date": "",
    }
    assert re.fullmatch(r"\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d -0000", found["date"])
    read = datetime.strptime(found["date"], "%d %b %Y %H:%M:%S -0000").replace(tzinfo=UTC)
    assert read.timestamp() == int(time)


@given(
    host=maybe(_HOST), ip=maybe(_IP), fixup_host=maybe(_HOST), fixup_ip=maybe(_IP), same=st.booleans(),
    profile=st.sampled_from([DEFAULT, COMPAT]),
)  # fmt: skip
def test_a_fixup_line_stands_in_front_where_the_world_sees_another_name(
    host: str | None, ip: str | None, fixup_host: str | None, fixup_ip: str | None, same: bool, profile: Profile
) -> None:
    if same:
        fixup_host, fixup_ip = host and host.upper(), ip and ip.upper()
    facts = {"TCPLOCALHOST": host, "TCPLOCALIP": ip, "FIXUP_RECEIVED_HOST": fixup_host, "FIXUP_RECEIVED_IP": fixup_ip}
    odd = any(value and not value.isprintable() for value in (fixup_host, fixup_ip))
    if odd:
        return  # the administrator's own words, who may fold the line
    env = {name: value for name, value in facts.items() if value is not None}
    session = Session(Connection(VirtualClock(), None, None), env, print, profile)
    *fixup, received = lines_of(session)
    assert _RECEIVED.match(received)
    known = session.local_host and session.local_ip and fixup_host and fixup_ip
    assert known is not None or not fixup
    differs = (host or "").lower() != (fixup_host or "").lower() or (ip or "").lower() != (fixup_ip or "").lower()
    assert len(fixup) == bool(known and differs)
    for line in fixup:
        found = _FIXUP.match(line)
        assert found is not None
        shown_ips = shown(ip, "TCP", profile), shown(fixup_ip, "TCP", profile)
        assert [*found.groups()[:5]] == [host, host, shown_ips[0], fixup_host, shown_ips[1]]


@given(header=st.one_of(st.none(), st.lists(st.sampled_from(["X-A: 1", "X-B: 2\n folded"]), max_size=3).map("\n".join)))
def test_header_add_stands_between(header: str | None) -> None:
    env = {"TCPLOCALHOST": "in", "TCPLOCALIP": "10.0.0.1"}
    env |= {"FIXUP_RECEIVED_HOST": "out", "FIXUP_RECEIVED_IP": "192.0.2.1"}
    env |= {} if header is None else {"HEADER_ADD": header}
    fixup, *added, received = lines_of(Session(Connection(VirtualClock(), None, None), env, print))
    assert _FIXUP.match(fixup) and _RECEIVED.match(received)
    assert "".join(added) == (f"{header}\n" if header else ""), "an empty line would end the header"
