"""TLS settings, the client role, browsers, ports, descriptors, numbers, facts: H35, H36, H84 to H86, H89, H91, H92,
H94."""

import contextlib
import errno
import resource
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from mailfront_io.drivers.listener import Backoff, raise_descriptor_limit
from mailfront_io.server import parse_address
from mailfront_io.session import LARGEST_NUMBER, parse_number
from mailfront_io.settings import ConfigurationError
from mailfront_io.testing import EOF, Action, PeerTLS, WaitFor
from mailfront_io.tls import TLSSettingError, context_for, server_context, server_end_point
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl import PlainClient
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.client import SMTPClient
from tests.certificates import certificate, client_context, write_pem
from tests.front import ENVELOPE, Front, codes
from tests.hostile.every import COMPAT, HELLO, codes_of, split_outcome

# -- TLS -------------------------------------------------------------------------------------------------


def test_h84_tls_12_at_least_without_compression_or_renegotiation(tmp_path: Path) -> None:
    context = server_context({"TLS_CERTFILE": str(write_pem(tmp_path))}.get)
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert names and not [n for n in names if "NULL" in n or "RC4" in n or "DES" in n or "MD5" in n or "EXP" in n]
    assert all(n.startswith(("TLS_", "ECDHE-", "DHE-")) for n in names)


def test_h84_tls_11_is_refused(tmp_path: Path) -> None:
    front = Front("accept", tls=server_context({"TLS_CERTFILE": str(write_pem(tmp_path))}.get))
    old = client_context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    script: list[Action] = [HELLO + b"STARTTLS\r\n", WaitFor(b"220 2.0.0"), PeerTLS(old, "mx.example.org"), EOF]
    check_turned_away(front, script)


def check_turned_away(front: Front, script: list[Action]) -> None:
    """No session in TLS; the scripted peer may raise for the alert that it gets."""
    played = front.play(script, all_read=False, catch=True)
    assert played.result == 1 or isinstance(played.error, ssl.SSLError)
    assert b"250-" not in played.output[played.output.find(b"220 2.0.0 ") :] or b"220 2.0.0 " not in played.output
    assert not any("TLS handshake: " in line for line in front.log)


def test_h35_session_tickets_are_bound_to_one_service(tmp_path: Path) -> None:
    """One of our services takes no ticket of another, though both have the same certificate."""

    def handshake(server: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = server.wrap_bio(to_server, to_client, server_side=True)
        theirs = client.wrap_bio(to_client, to_server, server_hostname="mx.example.org", session=session)
        for _ in range(4):
            for side in (theirs, ours):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        ours.write(b"220 ready")  # with it come the tickets of TLS 1.3
        assert theirs.read(100) == b"220 ready"
        return bool(theirs.session_reused), theirs.session

    getenv = {"TLS_CERTFILE": str(write_pem(tmp_path))}.get
    one, other = server_context(getenv), server_context(getenv)
    assert one is not None and other is not None
    client = client_context()
    _, ticket = handshake(one, None)
    assert handshake(one, ticket)[0] is True
    assert handshake(other, ticket)[0] is False


def asked_for(context: ssl.SSLContext, name: str) -> str:
    """The host name in the certificate that a client gets who asks for `name`."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context()
    client.check_hostname = False
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    certificate = theirs.getpeercert()
    assert certificate is not None
    return certificate["subjectAltName"][0][1]  # type: ignore[return-value]


def test_h36_names_that_clients_ask_for_choose_a_certificate_and_fill_no_cache(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.mkdir()
    for host in ("mail.example.net", "*.example.com"):
        certificate(host).private_key_and_cert_chain_pem.write_to_path(str(names / f"{host}.pem"))
    context = server_context({"TLS_CERTFILE": str(write_pem(tmp_path)), "TLS_SNI_DIRECTORY": str(names)}.get)
    assert context is not None
    assert asked_for(context, "MAIL.example.net") == "mail.example.net"
    assert asked_for(context, "a.example.com") == "*.example.com"
    for name in ("mx.example.org", "a.b.example.com", "example.com", "x.mail.example.net"):
        assert asked_for(context, name) == "mx.example.org"
    known = context_for(context, None)
    for number in range(10_000):
        assert context_for(context, f"host{number}.example") is known
    assert asked_for(context, "host1.example") == "mx.example.org"
    assert server_end_point(context, "mail.example.net") != server_end_point(context, "other.example.net")
    (names / "broken.pem").write_text("nothing")
    with pytest.raises(TLSSettingError, match=r"^\$TLS_SNI_DIRECTORY: .*broken\.pem"):
        server_context({"TLS_CERTFILE": str(write_pem(tmp_path)), "TLS_SNI_DIRECTORY": str(names)}.get)


@pytest.mark.parametrize("offered", [["h2"], ["http/1.1"], ["h2", "http/1.1"], ["imap"], ["ftp"]])
@pytest.mark.parametrize("immediate", [False, True], ids=["STARTTLS", "immediate"])
def test_h84_a_client_that_asks_for_another_protocol_is_turned_away(
    offered: list[str], immediate: bool, tmp_path: Path
) -> None:
    """ALPACA: a browser led to the wrong port. The session never begins."""
    context = server_context({"TLS_CERTFILE": str(write_pem(tmp_path))}.get)
    front = Front("accept", tls=context, env={"TLS_IMMEDIATE": ""} if immediate else {})
    browser = client_context()
    browser.set_alpn_protocols(offered)
    start: list[Action] = [] if immediate else [HELLO + b"STARTTLS\r\n", WaitFor(b"220 2.0.0")]
    check_turned_away(front, [*start, PeerTLS(browser, "mx.example.org"), HELLO, EOF])


@pytest.mark.parametrize("offered", [[], ["smtp"], ["smtp", "h2"]])
def test_h84_and_one_that_asks_for_ours_or_none_is_not(offered: list[str], tmp_path: Path) -> None:
    context = server_context({"TLS_CERTFILE": str(write_pem(tmp_path))}.get)
    front = Front("accept", tls=context, env={"TLS_IMMEDIATE": ""})
    peer = client_context()
    if offered:
        peer.set_alpn_protocols(offered)
    played = front.play([PeerTLS(peer, "mx.example.org"), HELLO + b"QUIT\r\n"], all_read=False)
    assert codes(played.output) == [220, 250, 221]


# -- the client role -------------------------------------------------------------------------------------


def greeted_client(capabilities: bytes) -> SMTPClient:
    client = SMTPClient("client.example.net")
    client.receive_data(b"220 hi\r\n")
    client.next_event()
    client.hello()
    client.data_to_send()
    client.receive_data(b"250-hi\r\n" + capabilities + b"250 PIPELINING\r\n")
    client.next_event()
    return client


def test_h85_credentials_never_go_in_clear_unless_asked() -> None:
    client = greeted_client(b"250-AUTH PLAIN LOGIN\r\n250-STARTTLS\r\n")
    with pytest.raises(LocalProtocolError, match="clear"):
        client.authenticate(PlainClient("joe", Secret(b"secret")))
    assert client.data_to_send() == b""
    client.authenticate(PlainClient("joe", Secret(b"secret")), allow_clear=True)
    assert client.data_to_send().startswith(b"AUTH PLAIN ")


def test_h85_a_missing_starttls_is_an_error() -> None:
    """What ``must`` is made of; the sessions of the client role are tested in tests/io."""
    client = greeted_client(b"")
    with pytest.raises(LocalProtocolError, match="not offered"):
        client.starttls()
    assert client.data_to_send() == b""


# -- other protocols, other ports ------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "get", "Post"])
@pytest.mark.parametrize("before", ["", "EHLO x\r\n", "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"])
def test_h86_an_http_verb_closes_at_once(verb: str, before: str) -> None:
    request = f"{before}{verb} / HTTP/1.1\r\nHost: 127.0.0.1:2525\r\n\r\nEHLO x\r\nMAIL FROM:<a@b.example>\r\n"
    outcome = split_outcome([request.encode()], few=True)
    assert outcome.output.splitlines()[-1].startswith(b"421 4.7.0 ")
    played = Front("accept").play([request.encode(), EOF], all_read=False)
    assert codes(played.output)[-1] == 421 and played.result == 1
    assert codes_of([f"{verb} / HTTP/1.1", "NOOP"], COMPAT) == [500, 250]  # the original knows of none


def serve_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("mailfront")
    return subprocess.run([str(program), "serve", *arguments], capture_output=True, text=True, timeout=60)


def test_h89_lmtp_is_refused_on_port_25() -> None:
    done = serve_line("--listen", "127.0.0.1:25", "lmtp", "discard", "accept")
    assert done.returncode == 78
    assert "LMTP may not be served on port 25" in done.stderr


# -- descriptors, numbers, facts -------------------------------------------------------------------------


def test_h91_accept_backs_off_says_so_once_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[BaseException] = []
    backoff = Backoff(said.append)
    error = OSError(errno.EMFILE, "Too many open files")
    assert [backoff.failed(error) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert said == [error]
    backoff._last -= 60
    assert backoff.failed(error) == 0.1
    assert len(said) == 2


def test_h91_the_soft_limit_on_descriptors_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(soft, 256)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        raise_descriptor_limit()
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == min(65_536, hard) if hard != resource.RLIM_INFINITY else raised == 65_536
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


NO_NUMBERS = [
    "1_0",
    "+5",
    "-5",
    " 5",
    "5 ",
    "\u0665",
    "\uff15",
    "5\n",
    "0x5",
    "1e3",
    "",
    "5.0",
    "²",
    "9" * 5000,
    "\x005",
]


@pytest.mark.parametrize("text", NO_NUMBERS, ids=[repr(t[:6]) for t in NO_NUMBERS])
def test_h92_what_is_no_number_is_one_nowhere(text: str) -> None:
    assert parse_number(text) is None
    if text == text.rstrip("\n ") and "\0" not in text:  # a blank at the end is none of the parameter
        assert codes_of([f"MAIL FROM:<a@b.example> SIZE={text}", "NOOP"], few=True)[0] in (500, 501)
    with pytest.raises(ConfigurationError):
        parse_address(f"127.0.0.1:{text}", 25)
    # In compat settings, which no peer has a part in, are read as the original does, but for what wraps around.
    front = Front("counters", "accept", env={"MAILFRONT_PROFILE": "compat", "DATABYTES": text})
    limit = {"+5": 5, " 5": 5, "-5": LARGEST_NUMBER, "9" * 5000: LARGEST_NUMBER}.get(text, 0)
    assert b"250-SIZE %d\r\n" % limit in front.say(b"EHLO x\r\n")


def test_h92_numbers_with_thousands_of_digits() -> None:
    front = Front("counters", "accept", env={"MAILFRONT_PROFILE": "compat", "DATABYTES": "10"})
    lines = [
        b"MAIL FROM:<a@b> SIZE=" + digits + b"\r\n" for digits in (b"9" * 9000, b"0" * 9000 + b"5", b"0" * 9000 + b"50")
    ]
    assert codes(front.say(*lines)) == [220, 552, 250, 552]


@pytest.mark.parametrize(
    "end", [b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8", b"\r"]
)
def test_h92_only_crlf_and_lf_end_a_line(end: bytes) -> None:
    outcome = split_outcome([HELLO + b"NOOP" + end + b"MAIL FROM:<a@b.example>\r\n"], few=True)
    assert len(outcome.codes()) == 3 and outcome.codes()[2] in (250, 500)
    assert "Mail" not in outcome.kinds()
    body = b"a" + end + b".\r\n" + end + b".\r\nb\r\n.\r\n"
    outcome = split_outcome([ENVELOPE + b"DATA\r\n", body], few=True)
    assert outcome.codes()[-2:] == [354, 250]


@pytest.mark.parametrize("name", ["REMOTEHOST", "REMOTEINFO", "REMOTEIP", "LOCALHOST", "LOCALIP", "REMOTEPORT"])
@pytest.mark.parametrize(
    "value", ["evil\r\nX-Injected: 1", "evil\nX: 1", "e\x00vil", "e\x1b[2J", "\u0085", ""], ids=repr
)
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_h94_facts_that_the_peer_has_a_part_in(name: str, value: str, profile: str) -> None:
    front = Front("accept", "add-received", env={f"TCP{name}": value, "MAILFRONT_PROFILE": profile})
    output = front.say(ENVELOPE + b"DATA\r\n", b"body\r\n.\r\nQUIT\r\n")
    assert codes(output)[-1] == 221
    message = front.messages[0][2]
    header, _, body = message.partition(b"body\n")
    assert header.startswith(b"Received: from x") and body == b""
    assert header.count(b"\n") == 3 and not set(header) & {0, 13, 27} and b"evil" not in header + output
