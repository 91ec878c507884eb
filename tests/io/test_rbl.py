"""The plugin rbl: which names it asks for, what comes of the answers, and mail that is kept before it is refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.peers import ResolveFailed
from mailfront_io.plugin import Plugin
from mailfront_io.plugins.rbl import LOOKUP_SECONDS, read_listing
from mailfront_io.service import service_from_line
from mailfront_io.settings import ConfigurationError
from mailfront_io.testing import EOF, Action, Late, Outside, Played
from tests.front import ENVELOPE, Front, codes

HERE = "7.2.0.192"
CLIENT = {"TCPREMOTEIP": "192.0.2.7"}
COMPAT = {**CLIENT, "MAILFRONT_PROFILE": "compat"}
BLACK = {**CLIENT, "RBL_BLACKLISTS": "bl.example,bl2.example"}
DEBUG = {"RBL_DEBUG": ""}
SAID = ENVELOPE + b"DATA\r\n", b"Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n", EOF
DNS_ERROR = b"451 4.3.0 DNS error doing RBL lookup\r\n"
ACCEPTED = [220, 250, 250, 250, 354, 250, 221]

Zone = Mapping[str, Sequence[Any] | Exception | Late]


def records(zone: Zone) -> dict[tuple[str, str], Any]:
    """``{"bl.example TXT": …}`` as records of the address of these tests."""
    return {(f"{HERE}.{name.split()[0]}", name.split()[1]): answer for name, answer in zone.items()}


def play(env: Mapping[str, str], zone: Zone, *, plugins: Sequence[str | type[Plugin]] = ("rbl", "accept"),
         dns: Mapping[tuple[str, str], Any] | None = None, **options: Any) -> tuple[Played, Front]:  # fmt: skip
    front = Front(*plugins, env=env, **options)
    outside = Outside(dns=dns if dns is not None else records(zone))
    return front.play(SAID, outside=outside, all_read=False), front


def blocked(played: Played) -> list[bytes]:
    """The texts of its first refusal."""
    lines = played.output.split(b"\r\n")
    return [line for line in lines if line[:3] == b"451"]


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize(
    ("zone", "text", "log"),
    [
        ({"bl.example TXT": [b"Because"]}, b"Because", ["blacklisted by bl.example: Because"]),
        (
            {"bl.example TXT": [b"Because"], "bl2.example TXT": [b"two", b"three"]},
            b"two",
            ["blacklisted by bl.example: Because", "blacklisted by bl2.example: two // three"],
        ),
        ({"bl2.example TXT": [b"a\x01\xff\n b"]}, b"a??? b", ["blacklisted by bl2.example: a??? b"]),
        ({}, None, []),
    ],
)
def test_blacklists(profile: str, zone: Zone, text: bytes | None, log: list[str]) -> None:
    played, front = play({**BLACK, **DEBUG, "MAILFRONT_PROFILE": profile}, zone)
    code = b"451 " if profile == "compat" else b"451 4.3.0 "
    assert blocked(played) == ([] if text is None else [code + b"Blocked: " + text])
    assert [line for line in front.log if line.startswith("rbl: ")] == [f"rbl: {line}" for line in log]
    assert len(front.messages) == (text is None)


def test_a_text_that_is_empty() -> None:
    played, _ = play({**BLACK, **COMPAT}, {"bl.example TXT": [b""]})
    assert blocked(played) == [b"451 Blocked: "]


def test_an_address_without_a_text_is_a_listing_too() -> None:
    zone = {"bl.example A": ["127.0.0.2", "127.0.1.4"]}
    played, front = play({**BLACK, **DEBUG}, zone)
    assert blocked(played) == [b"451 4.3.0 Blocked: listed by bl.example"]
    assert "rbl: blacklisted by bl.example: no text" in front.log
    played, _ = play({**BLACK, **COMPAT}, zone)
    assert codes(played.output) == ACCEPTED


@pytest.mark.parametrize("address", ["127.255.255.254", "203.0.113.5", "192.0.2.1"])
def test_a_list_that_is_out_of_order(address: str) -> None:
    """127.255.255.0/24 says what the list thinks of us, not of the client; and a domain that was given up may answer
    everything with the address of a web server, and a text."""
    zone: Zone = {"bl.example A": [address], "bl.example TXT": [b"v=spf1 -all"]}
    played, front = play(BLACK, zone)
    assert played.output == DNS_ERROR
    assert front.log[0].endswith(f": plugin rbl: bl.example answers {address}, which is no listing")
    played, _ = play(BLACK, {**zone, "bl2.example TXT": [b"Because"]})
    assert blocked(played) == [b"451 4.3.0 Blocked: Because"]


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_whitelists(profile: str) -> None:
    env = {**BLACK, **DEBUG, "RBL_WHITELISTS": "wl.example,wl2.example", "MAILFRONT_PROFILE": profile}
    zone = {"bl.example TXT": [b"Because"], "wl.example TXT": [b"Fine"], "wl2.example TXT": [b"Too"]}
    played, front = play(env, zone)
    assert codes(played.output) == ACCEPTED
    assert [line for line in front.log if line.startswith("rbl")] == ["rbl: whitelisted by wl.example: Fine"]
    played, _ = play({**env, "RBL_BLACKLISTS": ""}, zone)
    assert codes(played.output) == ACCEPTED


FAILED = ResolveFailed("x TXT: 192.0.2.53: the name server said SERVFAIL")
HIT = [b"Because"]


@pytest.mark.parametrize(
    ("zone", "ours", "compat"),
    [
        ({"bl.example TXT": FAILED}, DNS_ERROR, DNS_ERROR),
        ({"bl.example TXT": FAILED, "bl2.example TXT": HIT}, b"Because", DNS_ERROR),
        ({"bl.example TXT": HIT, "bl2.example TXT": FAILED}, b"Because", DNS_ERROR),
        ({"wl.example TXT": FAILED}, b"250 ", DNS_ERROR),
        ({"wl.example TXT": FAILED, "bl.example TXT": HIT}, DNS_ERROR, DNS_ERROR),
        ({"wl.example TXT": HIT, "bl.example TXT": FAILED}, b"250 ", b"250 "),
        ({"bl.example TXT": FAILED, "bl.example A": ["127.0.0.2"]}, b"listed by bl.example", DNS_ERROR),
        ({"bl.example A": FAILED, "bl.example TXT": HIT}, b"Because", b"Because"),
        ({"bl.example A": FAILED}, DNS_ERROR, b"250 "),
    ],
)
def test_lists_that_do_not_answer(zone: Zone, ours: bytes, compat: bytes) -> None:
    env = {**BLACK, "RBL_WHITELISTS": "wl.example"}
    for profile, expected in (("default", ours), ("compat", compat)):
        played, front = play({**env, "MAILFRONT_PROFILE": profile}, zone)
        if expected == b"250 ":
            assert codes(played.output) == ACCEPTED
        else:
            assert expected in played.output
        assert any("SERVFAIL" in line for line in front.log) == (expected == DNS_ERROR and profile == "default")


def test_who_lists_it_may_let_mail_pass_where_lists_do_not_answer() -> None:
    zone = {"bl.example TXT": FAILED}
    played, front = play(BLACK, zone, plugins=("rbl,failure=pass", "accept"))
    assert codes(played.output) == ACCEPTED
    assert front.log[0].endswith(f": plugin rbl: bl.example: {FAILED}, passed")
    played, _ = play(BLACK, {**zone, "bl2.example TXT": HIT}, plugins=("rbl,failure=pass", "accept"))
    assert blocked(played) == [b"451 4.3.0 Blocked: Because"]


def test_four_lists_take_as_long_as_one() -> None:
    env = {**CLIENT, "RBL_BLACKLISTS": "a.example,b.example,c.example", "RBL_WHITELISTS": "d.example"}
    zone = {f"{letter}.example {kind}": Late(1.0, []) for letter in "abcd" for kind in ("A", "TXT")}
    played, _ = play(env, zone)
    assert codes(played.output) == ACCEPTED
    assert played.elapsed <= 1.2


@pytest.mark.parametrize(("plugin", "seconds"), [("rbl", LOOKUP_SECONDS), ("rbl,deadline=5", 5)])
def test_h67_a_list_that_hangs(plugin: str, seconds: float) -> None:
    played, front = play(BLACK, {"bl.example TXT": Late(1e6, [])}, plugins=(plugin, "accept"))
    assert played.output == DNS_ERROR
    assert played.elapsed == seconds
    assert front.log[0].endswith(": plugin rbl: bl.example: no answer in time")


@pytest.mark.parametrize(
    ("env", "log"),
    [
        ({"RBL_BLACKLISTS": ""}, "{rbl: No blacklists, skipping}"),
        ({"RBL_WHITELISTS": "wl.example"}, "{rbl: No blacklists, skipping}"),
        ({"RBL_BLACKLISTS": "bl.example"}, "{rbl: $TCPREMOTEIP is unset, skipping RBL tests}"),
        ({"RBL_BLACKLISTS": "bl.example", "TCPREMOTEIP": "host"}, "rbl: Cannot parse IP 'host'"),
        (
            {"RBL_BLACKLISTS": "bl.example", "TCPREMOTEIP": "::1", "MAILFRONT_PROFILE": "compat"},
            "rbl: Cannot parse IP '::1'",
        ),
    ],
)
def test_no_list_is_asked(env: Mapping[str, str], log: str) -> None:
    facts = {"TCPLOCALHOST": "mx.example.org"}
    for debug in (DEBUG, {}):
        played, front = play({**facts, **env, **debug}, {}, bare_env=True)
        assert codes(played.output) == ACCEPTED
        assert (log in front.log) == bool(debug or "Cannot" in log)


SIX = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"PROTO": "TCP6", "TCP6REMOTEIP": "2001:db8::1"}, SIX),
        ({"TCPREMOTEIP": "2001:db8::1"}, SIX),
        ({"TCPREMOTEIP": "::ffff:192.0.2.7"}, HERE),
        ({"TCPREMOTEIP": "fe80::1%eth0"}, "1" + ".0" * 28 + ".8.e.f"),
        ({"TCPREMOTEIP": "192.0.2.7"}, HERE),
    ],
)
def test_names_of_addresses(env: Mapping[str, str], name: str) -> None:
    zone = {(f"{name}.bl.example", "TXT"): [b"Because"]}
    played, _ = play({"TCPLOCALHOST": "mx", "RBL_BLACKLISTS": " bl.example ,", **env}, {}, dns=zone, bare_env=True)
    assert blocked(played) == [b"451 4.3.0 Blocked: Because"]


def test_a_proxy_speaks_for_another_client() -> None:
    """XCLIENT: the lists are asked for the client, and what they said of the proxy counts no more."""
    env = {**BLACK, "XCLIENT_HOSTS": "192.0.2.7"}
    mail = b"EHLO x\r\nMAIL FROM:<a@b>\r\n"
    for listed, client, expected in (("9.2.0.192", "192.0.2.9", 451), (HERE, "192.0.2.8", 250)):
        front = Front("rbl", "accept", env=env)
        outside = Outside(dns={(f"{listed}.bl.example", "TXT"): [b"Because"]})
        said: list[Action] = [b"EHLO x\r\n", b"XCLIENT ADDR=%s\r\n" % client.encode(), mail + b"QUIT\r\n", EOF]
        assert codes(front.play(said, outside=outside).output) == [220, 250, 220, 250, expected, 221]


def test_without_dnspython_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailfront_io.plugins.rbl.find_spec", lambda name: None)
    service_from_line(["smtp", "discard", "rbl"], {}, print)
    with pytest.raises(ConfigurationError, match=r"pip install 'mailfront\[dns\]'"):
        service_from_line(["smtp", "discard", "rbl"], BLACK, print)


# -- mail that is kept -----------------------------------------------------------------------------------------


def boxes(place: Path, new: str = "new") -> dict[str, str]:
    for box in ("tmp", new):
        (place / box).mkdir()
    return {**BLACK, "RBL_QUEUEDIR": str(place)}


def kept(place: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_mail_is_kept_and_refused(tmp_path: Path, profile: str) -> None:
    env = boxes(tmp_path) | {"MAILFRONT_PROFILE": profile}
    played, front = play(env, {"bl.example TXT": HIT}, plugins=("rbl", "add-received", "accept"))
    assert codes(played.output) == [220, 250, 250, 250, 354, 451, 221]
    assert b"Blocked: Because\r\n221 " in played.output
    assert kept(tmp_path) == [b"a@example.net\0b@example.org\0\0Subject: x\n\nbody\n"]
    assert kept(tmp_path / "tmp") == [] == front.messages


def test_settings_of_the_queue(tmp_path: Path) -> None:
    env = boxes(tmp_path, "dest") | {"RBL_QUEUEDIR_DEST": "dest", "RBL_QUEUEDIR_NOSYNC": "", "QUEUEDIR_DEST": "no"}
    play(env, {"bl.example TXT": HIT})
    assert len(kept(tmp_path / "dest")) == 1


def test_mail_of_others_is_not_kept(tmp_path: Path) -> None:
    played, front = play(boxes(tmp_path), {})
    assert codes(played.output) == ACCEPTED
    assert kept(tmp_path) == [] and len(front.messages) == 1


def test_a_queue_that_cannot_be_written(tmp_path: Path) -> None:
    env = {**BLACK, "RBL_QUEUEDIR": str(tmp_path / "none")}
    played, _ = play(env, {"bl.example TXT": HIT})
    assert blocked(played) == [b"451 4.3.0 Error creating queue file"]
    (tmp_path / "tmp").mkdir()
    played, _ = play({**env, "RBL_QUEUEDIR": str(tmp_path)}, {"bl.example TXT": HIT})
    assert blocked(played) == [b"451 4.3.0 Error writing queue file"]
    assert kept(tmp_path) == []


@pytest.mark.parametrize("queue", ["", None])
def test_no_queue(queue: str | None) -> None:
    env = BLACK if queue is None else {**BLACK, "RBL_QUEUEDIR": queue}
    played, _ = play(env, {"bl.example TXT": HIT})
    assert blocked(played) == [b"451 4.3.0 Blocked: Because"]


def test_kept_one_after_the_other(tmp_path: Path) -> None:
    """A message that another plugin refuses, one that is given up, one that is kept: none leaves anything behind."""
    front = Front("rbl", "counters", "accept", env=boxes(tmp_path) | {"DATABYTES": "30"})
    mail = b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
    too_large: list[Action] = [ENVELOPE + b"DATA\r\n", b"x" * 40 + b"\r\n.\r\n"]
    script = [*too_large, mail, b"small\r\n.\r\n", mail, b"other", EOF]
    played = front.play(script, outside=Outside(dns=records({"bl.example TXT": HIT})))
    assert [code for code in codes(played.output) if code >= 400] == [552, 451]
    assert kept(tmp_path) == [b"a@b\0c@d\0\0small\n"]


def test_h66_a_message_that_cannot_be_held(tmp_path: Path) -> None:
    env = boxes(tmp_path) | {"TMPDIR": str(tmp_path / "none")}
    front = Front("rbl", "accept", env=env)
    said: list[Action] = [ENVELOPE + b"DATA\r\n", (b"x" * 70 + b"\r\n") * 9000 + b".\r\nQUIT\r\n", EOF]
    played = front.play(said, outside=Outside(dns=records({"bl.example TXT": HIT})))
    assert codes(played.output) == [220, 250, 250, 250, 354, 451, 221]
    assert kept(tmp_path) == []


# -- reading answers -------------------------------------------------------------------------------------------

_TEXTS = st.one_of(st.lists(st.binary(max_size=40), max_size=3).map(tuple), st.just(ResolveFailed("no")))
_ADDRESSES = st.one_of(
    st.lists(st.ip_addresses(v=4).map(str), max_size=3).map(tuple),
    st.lists(st.integers(0, 255).map("127.0.0.{}".format), max_size=3).map(tuple),
    st.just(ResolveFailed("no")),
)


@given(texts=_TEXTS, addresses=_ADDRESSES)
def test_h68_no_answer_does_harm(texts: Any, addresses: Any) -> None:
    """Any answers: a listing with printable text, a failure, or neither; never both."""
    listing = read_listing("bl.example", [texts, addresses])
    assert not (listing.failure and listing.texts is not None)
    if isinstance(texts, Exception) and isinstance(addresses, Exception):
        assert listing.failure
    for text in listing.texts or ():
        assert text.isascii() and (not text or text.isprintable())
