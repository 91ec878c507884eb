"""Packages over QMTP and QMQP: Debian's mailfront 2.12 against ours in the compat profile.

Packages are generated whole, cut short, and with one byte changed. Replies, exit code, log lines and files must be
equal; what is left out of the generated ones, because the original has a fault there, is in `EXPLAINED_INPUTS`.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailfront_proto.netstring import encode_netstring as netstring
from tests.peers.one_shot import OneShot
from tests.peers.original import CONNECTION, Explained, check_explained, compare, needs_original

pytestmark = needs_original

_SENDER = st.sampled_from([b"", b"a@b.example", b"bare", b"x@host", b"a b@two.example", b"\xe9@d.example"])
_RECIPIENT = st.sampled_from(
    [b"c@d.example", b"c@d.example", b"bad", b"u@two.example", b"", b"<e@f.example>", b"x@host"]
)
_BODY = st.lists(
    st.sampled_from(
        [
            *(b"\n", b"\n", b"\r\n", b"\r", b".", b"x", b"\xff", b"line of text\n" * 5, b"\n\n", b"long" * 1500),
            *(b"Received: a\n", b"delivered-to: b\n", b"Subject: t\n"),
        ]
    ),
    min_size=1,
    max_size=12,
).map(b"".join)

_SETTINGS: list[tuple[tuple[str, ...], dict[str, list[str]]]] = [
    (("accept",), {}),
    (("force-file", "accept"), {}),
    ((), {}),
    (("check-fqdn", "accept"), {"DEFAULTHOST": ["host.example", ""], "SENDER_DOMAINS": ["b.example", "two.example"]}),
    (
        ("counters", "accept"),
        {
            "DATABYTES": ["0", "5", "40", "5000"],
            "MAXRCPTS": ["0", "1", "2"],
            "MAXRCPTS_REJECT": [""],
            "MAXMSGS": ["0", "1", "2"],
            "MAXHOPS": ["1", "2", "0"],
        },
    ),
    (("accept-sender", "relayclient"), {"RELAYCLIENT": ["", "@relay.example"]}),
    (("reject", "accept"), {"REJECT": ["later", "-never", ""]}),
    (("add-received", "accept"), {"HEADER_ADD": ["X-Site: one"], "TCPLOCALIP": [""], "TCPREMOTEIP": ["2001:db8::2"]}),
]


def package(protocol: str, body: bytes, sender: bytes, recipients: list[bytes]) -> bytes:
    """A package as a client sends it."""
    to = b"".join(map(netstring, recipients))
    if protocol == "qmqp":
        return netstring(netstring(body) + netstring(sender) + to)
    return netstring(b"\n" + body) + netstring(sender) + netstring(to)


@st.composite
def _said(draw: st.DrawFn, protocol: str) -> bytes:
    """All that a client sends: packages, perhaps cut short, or with a byte that is wrong. A message begins with a
    whole line, and is not cut in it: one without a line end crashes the original's echo backend."""
    body = _BODY.map(lambda rest: b"s\n" + rest)
    recipients = st.lists(_RECIPIENT, min_size=1, max_size=4)
    packages = st.builds(package, st.just(protocol), body, _SENDER, recipients)
    said = b"".join(draw(st.lists(packages, min_size=1, max_size=3 if protocol == "qmtp" else 1)))
    what = draw(st.integers(0, 5))
    if what == 0:
        said = said[: draw(st.integers(0, len(said)).filter(lambda end: not said[:end].endswith(b"s")))]
    elif what == 1 and len(said) < 4096:  # of more the original has not read, nor counted, all when it gives up
        at = draw(st.sampled_from([n for n, byte in enumerate(said) if byte in b":,"]))
        said = said[:at] + draw(st.sampled_from([b"x", b";", b" ", b"-"])) + said[at + 1 :]
    return said


@st.composite
def _case(draw: st.DrawFn) -> tuple[list[str], dict[str, str], bytes]:
    """Arguments, environment and input of one run."""
    protocol = draw(st.sampled_from(["qmtp", "qmqp"]))
    plugins, variables = draw(st.sampled_from(_SETTINGS))
    env = dict(CONNECTION)
    for name, values in variables.items():
        value = draw(st.sampled_from([None, *values]))
        if value is not None:
            env[name] = value
    backend = draw(st.sampled_from(["echo", "queuedir"]))
    return [protocol, backend, *plugins], env, draw(_said(protocol))


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=_case())
def test_generated_packages(one_shot: OneShot, case: tuple[list[str], dict[str, str], bytes]) -> None:
    compare(one_shot, *case)


_ENVELOPE = b"7:a@b.net,9:6:c@d.ex,,"

EXPLAINED_INPUTS = {
    "message-without-line-end": Explained(
        "the original's echo backend crashes",
        b"2:\nx," + _ENVELOPE,
        b"",
        b"KReceived 1 bytes.",
        "qmtp echo accept",
    ),
    "nul-behind-recipients": Explained(
        "the original's queuedir leaves out the NUL that ends the recipients, when the message came before them",
        b"3:\nx\n," + _ENVELOPE,
        b"c@d.ex\0x\n",
        b"c@d.ex\0\0x\n",
        "qmtp queuedir accept",
    ),
    "nul-in-recipient": Explained(
        "a NUL in an address reaches the original's envelope",
        b"3:\nx\n,7:a@b.net,9:6:c@\0.ex,,",
        b"c@\0.ex",
        b"D5.5.2 Syntax error in address parameter.",
        "qmtp queuedir accept",
    ),
    "length-that-wraps": Explained(
        "a length of more digits than the original's numbers have wraps",
        b"18446744073709551619:\nx\n," + _ENVELOPE,
        b"KReceived 2 bytes.",
        b"Invalid message body netstring",
        "qmtp echo accept",
    ),
}


@pytest.mark.parametrize("name", EXPLAINED_INPUTS)
def test_explained_input(one_shot: OneShot, name: str) -> None:
    check_explained(one_shot, EXPLAINED_INPUTS[name])
