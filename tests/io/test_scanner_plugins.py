"""The plugins clamav and spamassassin: what they say to their daemons, and what comes of the answers."""

import re
import socket
import threading
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from mailfront_io.backends.discard import Discard
from mailfront_io.drivers import blocking
from mailfront_io.ops import CLEANUP_SECONDS
from mailfront_io.plugin import Backend, Lines
from mailfront_io.spool import Spool
from mailfront_io.testing import (
    CANCEL,
    EOF,
    REFUSED,
    RESET,
    SILENT,
    STALL,
    UNTIL_EOF,
    Action,
    Advance,
    Outside,
    Played,
    WaitFor,
    run_script,
)
from tests.front import ENVELOPE, Front, codes

MESSAGE = b"Subject: x\n\nbody\n"
CLAMD = ("192.0.2.10", 3310)
SPAMD = ("192.0.2.11", 783)
AT_CLAMD = {"CLAMAV_HOST": "192.0.2.10"}
AT_SPAMD = {"SPAMD_HOST": "192.0.2.11"}
COMPAT = {"MAILFRONT_PROFILE": "compat"}

END_OF_STREAM = bytes(4)
NO_SCAN = "451 4.3.0 Could not virus scan message"
NO_HOST = "451 4.3.0 Could not resolve virus scanner hostname"
NO_SPAMD = "451 4.3.0 Could not SpamAssassin scan message"
NO_SPAMD_HOST = "451 4.3.0 Could not resolve SpamAssassin hostname"
FOUND = "554 5.7.0 Virus scan failed: {}"


class Spooled(Backend):
    """Keeps what is in the spool at the end in `messages`."""

    name = "spooled"
    spools = True
    messages: list[bytes]

    def message_end(self, spool: Spool) -> None:
        self.messages.append(b"".join(spool.blocks()))


class Scanned:
    """One message through the plugin `name`."""

    def __init__(
        self,
        name: str,
        env: Mapping[str, str],
        peers: Mapping[Any, Any],
        *,
        dns: Mapping[Any, Any] | None = None,
        message: bytes = MESSAGE,
        before: Sequence[Action] = (),
    ) -> None:
        self.messages: list[bytes] = []
        spooled = type("Spooled", (Spooled,), {"messages": self.messages})
        front = Front(name, "accept", backend=spooled, env=env)
        body = message.replace(b"\n", b"\r\n") + b".\r\nQUIT\r\n"
        script = [ENVELOPE + b"DATA\r\n", WaitFor(b"354 "), body, *before, EOF]
        outside = Outside(peers=peers, dns=dns or {})
        self.played: Played = front.play(script, outside=outside, all_read=False)
        self.reply = self.played.output.split(b"\r\n")[-3].decode("utf-8", "surrogateescape")
        self.log = [line for line in front.log if line.startswith(("Warning", "Error"))]
        assert codes(self.played.output)[-1] == 221, "the session lives"


# -- clamav ----------------------------------------------------------------------------------------------------


def clamd(answer: bytes, *rest: Action) -> list[Action]:
    return [WaitFor(END_OF_STREAM), answer, *(rest or (EOF,))]


@pytest.mark.parametrize(
    ("answer", "ours", "compat"),
    [
        (b"stream: OK\n", "250", "250"),
        (b"stream: Eicar-Test FOUND\n", FOUND.format("Eicar-Test FOUND"), FOUND.format("Eicar-Test FOUND")),
        (b"stream: Eicar-Test FOUND\r\n", FOUND.format("Eicar-Test FOUND"), FOUND.format("Eicar-Test FOUND")),
        (b"stream: x ERROR\n", NO_SCAN, FOUND.format("x ERROR")),
        (b"stream: OKx\n", NO_SCAN, FOUND.format("OKx")),
        (b"stream: ok\n", NO_SCAN, FOUND.format("ok")),
        (b"STREAM: x FOUND\n", NO_SCAN, NO_SCAN),
        (b"INSTREAM size limit exceeded. ERROR\n", NO_SCAN, NO_SCAN),
        (b"OK\n", NO_SCAN, NO_SCAN),
        (b"", NO_SCAN, NO_SCAN),
    ],
)
def test_clamd_answers(answer: bytes, ours: str, compat: str) -> None:
    for profile, expected in (({}, ours), (COMPAT, compat)):
        scanned = Scanned("clamav", AT_CLAMD | profile, {CLAMD: clamd(answer)})
        assert scanned.reply.startswith(expected)
        assert scanned.messages == ([MESSAGE] if expected == "250" else [])
        assert scanned.played.peers == [(CLAMD, b"nINSTREAM\n\0\0\0\x11" + MESSAGE + END_OF_STREAM)]
        assert bool(scanned.log) == (expected == NO_SCAN and not profile)


def test_clamd_says_why_it_cannot() -> None:
    scanned = Scanned("clamav", AT_CLAMD, {CLAMD: clamd(b"INSTREAM size limit exceeded. ERROR\n")})
    (line,) = scanned.log
    why = "192.0.2.10 port 3310: INSTREAM size limit exceeded. ERROR; there is no other address"
    assert re.fullmatch(f"Error [0-9a-f]{{8}}: plugin clamav: {re.escape(why)}", line)


@pytest.mark.parametrize(
    ("env", "address"),
    [
        ({"CLAMAV_HOST": "192.0.2.10", "CLAMD_HOST": "192.0.2.66", "CLAMAV_PORT": "99", "CLAMD_PORT": "66"}, 99),
        ({"CLAMD_HOST": "192.0.2.10", "CLAMD_PORT": "99"}, 99),
        ({"CLAMAV_HOST": "192.0.2.10"}, 3310),
    ],
)
def test_where_clamd_is(env: Mapping[str, str], address: int) -> None:
    assert Scanned("clamav", env, {("192.0.2.10", address): clamd(b"stream: OK\n")}).reply.startswith("250")


@pytest.mark.parametrize("name", ["clamav", "spamassassin"])
@pytest.mark.parametrize(
    ("env", "texts"),
    [
        ({}, (NO_SCAN, NO_SPAMD)),
        ({"HOST": ""}, (NO_HOST, NO_SPAMD_HOST)),
        ({"HOST": " , "}, (NO_HOST, NO_SPAMD_HOST)),
        ({"HOST": "none.example"}, (NO_HOST, NO_SPAMD_HOST)),
        ({"HOST": "192.0.2.20"}, (NO_SCAN, NO_SPAMD)),
        ({"HOST": "192.0.2.20", "PORT": "0"}, (NO_SCAN, NO_SPAMD)),
        ({"HOST": "192.0.2.20", "PORT": "70000"}, (NO_SCAN, NO_SPAMD)),
        ({"PATH": "/run/none"}, (NO_SCAN, NO_SPAMD)),
        ({"MAXSIZE": "1"}, (NO_SCAN, NO_SPAMD)),
    ],
)
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_nobody_to_ask(name: str, env: Mapping[str, str], texts: tuple[str, str], profile: str) -> None:
    prefix, port, text = ("CLAMAV", 3310, texts[0]) if name == "clamav" else ("SPAMD", 783, texts[1])
    settings = {f"{prefix}_{key}": value for key, value in env.items()} | {"MAILFRONT_PROFILE": profile}
    peers = {("192.0.2.20", port): REFUSED, "/run/none": REFUSED}
    scanned = Scanned(name, settings, peers, dns={("none.example", "A"): []})
    assert scanned.reply == text
    assert bool(scanned.log) == (profile == "default")
    passed = Scanned(f"{name},failure=pass", settings, peers, dns={("none.example", "A"): []})
    assert passed.reply.startswith("250 ") and passed.messages == [MESSAGE]
    assert len(passed.log) == 1 and passed.log[0].endswith(", passed")


@pytest.mark.parametrize("size", [16, 17, 0])
def test_sizes(size: int) -> None:
    answer = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 17\r\n\r\n" + MESSAGE
    for name, title, env, peers in (
        ("clamav", "ClamAV", AT_CLAMD | {"CLAMAV_MAXSIZE": str(size)}, {CLAMD: clamd(b"stream: OK\n")}),
        ("spamassassin", "SpamAssassin", AT_SPAMD | {"SPAMD_MAXSIZE": str(size)}, {SPAMD: [UNTIL_EOF, answer, EOF]}),
    ):
        scanned = Scanned(name, env, peers)
        skipped = size == 16
        warning = f"Warning: {title} scanning skipped: message larger than maximum"
        assert scanned.log == ([warning] if skipped else [])
        assert len(scanned.played.peers) == (not skipped)
        assert scanned.reply.startswith("250")


def test_every_address_is_tried_until_one_scans() -> None:
    """Nobody there, silence, a reset, an odd answer, an end; whatever comes first."""
    seven = [f"192.0.2.{i}" for i in range(1, 6)]
    good = "2001:db8::1"
    peers = {
        (seven[0], 3310): REFUSED,
        (seven[1], 3310): clamd(b"what?\n"),
        (seven[2], 3310): [WaitFor(b"body"), RESET],
        (seven[3], 3310): clamd(b"stream: x ERROR\n"),
        (seven[4], 3310): [WaitFor(END_OF_STREAM), Advance(1000)],
        (good, 3310): clamd(b"stream: A FOUND\n"),
    }
    dns = {("clamd.example", "A"): seven, ("clamd.example", "AAAA"): [good]}
    tried = set()
    for _ in range(20):
        scanned = Scanned("clamav", {"CLAMAV_HOST": "clamd.example"}, peers, dns=dns)
        assert scanned.reply == FOUND.format("A FOUND")
        assert scanned.played.peers[-1][0] == (good, 3310)
        assert len({address for address, _ in scanned.played.peers}) == len(scanned.played.peers)
        tried.add(len(scanned.played.peers))
    assert len(tried) > 1, "the start is random"


def test_several_hosts_and_a_unix_socket() -> None:
    peers = {("192.0.2.1", 3310): REFUSED, ("2001:db8::1", 3310): clamd(b"stream: OK\n")}
    assert Scanned("clamav", {"CLAMAV_HOST": "192.0.2.1, 2001:db8::1"}, peers).reply.startswith("250")
    found = {"/run/clamd": clamd(b"stream: A FOUND\n")}
    scanned = Scanned("clamav", {"CLAMAV_PATH": "/run/clamd", "CLAMAV_HOST": "192.0.2.1"}, found)
    assert scanned.reply == FOUND.format("A FOUND")


# -- spamassassin ----------------------------------------------------------------------------------------------

HEAD = b"SPAMD/1.1 0 EX_OK\r\n"
HAM = b"X-Spam-Status: No, s=1\nSubject: y\n\nbody y\n"
SPAM = b"Subject: y\nx-spam-status:  yes, s=9\n\nbody y\n"
REFUSAL = "554 5.3.0 Spam detected, message refused"


def spamd(body: bytes, *, head: bytes = HEAD, length: int | None = None) -> list[Action]:
    size = len(body) if length is None else length
    return [UNTIL_EOF, head + b"Content-length: %d\r\nSpam: True ; 9 / 5\r\n\r\n" % size, body, EOF]


def plain(body: bytes) -> list[Action]:
    """As spamd answers to version 1.2."""
    return [UNTIL_EOF, HEAD + b"\r\n" + body, EOF]


@pytest.mark.parametrize(
    ("profile", "answer", "version"), [("default", spamd, b"1.5"), ("compat", plain, b"1.2"), ("compat", spamd, b"1.2")]
)
@pytest.mark.parametrize("reject", [None, "", "go\naway"])
@pytest.mark.parametrize(
    ("body", "is_spam"),
    [
        (HAM, False),
        (SPAM, True),
        (b"Subject: y\n\nX-Spam-Status: Yes\n", False),
        (b"\nX-Spam-Status: Yes\n", False),
        (b"X-Spam-Status: \tYes\n\n", False),
        (b"X-Spam-Status:Yes\n", True),
        (b"X-Spam-Status: No\nX-Spam-Status: Yes\n\n", False),
        (b"X-Not-X-Spam-Status: Yes\n\n", False),
        (b"X: " + b"a" * 200_000 + b"\nX-Spam-Status: Yes\n\n", True),
    ],
)
def test_spamd_answers(
    profile: str,
    answer: Callable[[bytes], list[Action]],
    version: bytes,
    reject: str | None,
    body: bytes,
    is_spam: bool,
) -> None:
    env = AT_SPAMD | {"MAILFRONT_PROFILE": profile} | ({"SPAMD_REJECT": reject} if reject is not None else {})
    scanned = Scanned("spamassassin", env, {SPAMD: answer(body)})
    if reject is not None and is_spam:
        last_line = "554 away" if profile == "compat" else "554 5.6.0 away"
        assert scanned.reply == (last_line if reject else REFUSAL)
        assert scanned.messages == []
    else:
        assert scanned.reply.startswith("250")
        assert scanned.messages == [body]
    asked = b"PROCESS SPAMC/%s\r\nContent-Length: 17\r\n\r\n" % version + MESSAGE
    assert scanned.played.peers == [(SPAMD, asked)]


def test_spamd_s_user_and_socket() -> None:
    env = {"SPAMD_PATH": "/run/spamd", "SPAMD_HOST": "192.0.2.66", "SPAMD_USER": "joe"}
    scanned = Scanned("spamassassin", env, {"/run/spamd": spamd(HAM)})
    assert scanned.messages == [HAM]
    assert scanned.played.peers[0][1].startswith(b"PROCESS SPAMC/1.5\r\nContent-Length: 17\r\nUser: joe\r\n\r\n")
    scanned = Scanned("spamassassin", env | {"SPAMD_USER": "two words"}, {"/run/spamd": spamd(HAM)})
    assert scanned.reply == NO_SPAMD
    assert "one word" in scanned.log[0]


def test_a_backend_with_crlf_gets_what_spamd_has_made() -> None:
    stored: list[bytes] = []

    class CRLF(Spooled):
        lines = Lines.CRLF
        messages = stored

    front = Front("spamassassin", "accept", backend=CRLF, env=AT_SPAMD)
    script: list[Action] = [ENVELOPE + b"DATA\r\n", b"a\r\n\r\nb\r\n.\r\nQUIT\r\n", EOF]
    played = front.play(script, outside=Outside(peers={SPAMD: spamd(b"X: y\r\n\r\nb\r\n")}))
    assert played.peers[0][1].endswith(b"\r\n\r\na\r\n\r\nb\r\n")
    assert stored == [b"X: y\r\n\r\nb\r\n"]


# -- deadlines, faults, size -----------------------------------------------------------------------------------

SMALL = {"TIMEOUT": "1000", "CONNECT_TIMEOUT": "3000", "SEND_TIMEOUT": "2000"}


@pytest.mark.parametrize("name", ["clamav", "spamassassin"])
@pytest.mark.parametrize(
    ("who", "env", "seconds"),
    [
        (SILENT, {}, 5),
        ([STALL, Advance(1e6)], {}, 5),
        ([Advance(1e6)], {}, 5),
        ([Advance(1e6)], {"TIMEOUT": "0"}, 5),
        (SILENT, SMALL, 3),
        ([STALL, Advance(1e6)], SMALL, 2),
        ([Advance(1e6)], SMALL, 1),
        (SILENT, {"TIMEOUT": "700"}, 0.7),
        ([STALL, Advance(1e6)], {"TIMEOUT": "700"}, 0.7),
    ],
)
def test_h67_each_step_has_its_deadline(name: str, who: Any, env: Mapping[str, str], seconds: float) -> None:
    prefix, address, text = ("CLAMAV", CLAMD, NO_SCAN) if name == "clamav" else ("SPAMD", SPAMD, NO_SPAMD)
    settings = {f"{prefix}_{key}": value for key, value in env.items()} | {f"{prefix}_HOST": address[0]}
    scanned = Scanned(name, settings, {address: who})
    assert scanned.reply == text
    assert scanned.played.elapsed == pytest.approx(seconds)
    assert "no answer in time" in scanned.log[0]
    quick = Scanned(f"{name},deadline=1", settings | {f"{prefix}_TIMEOUT": "9000"}, {address: [Advance(1e6)]})
    assert quick.reply == text
    assert quick.played.elapsed == 1


def test_a_slow_scanner_that_goes_on_is_waited_for() -> None:
    slowly = [UNTIL_EOF, Advance(4), HEAD + b"Content-length: 44\r\n", Advance(4), b"\r\n" + SPAM[:10], Advance(4)]
    scanned = Scanned("spamassassin", AT_SPAMD, {SPAMD: [*slowly, SPAM[10:], EOF]})
    assert len(SPAM) == 44 and scanned.messages == [SPAM]
    assert scanned.played.elapsed == 12


def test_a_session_that_is_cancelled_while_it_is_scanned() -> None:
    front = Front("clamav", "accept", env=AT_CLAMD)
    script: list[Action] = [ENVELOPE + b"DATA\r\n", b"x\r\n.\r\n", Advance(1), CANCEL]
    outside = Outside(peers={CLAMD: [Advance(1e6)]})
    played = run_script(front.session, script, outside=outside, catch=True, all_read=False)
    assert played.elapsed <= 1 + CLEANUP_SECONDS
    assert front.messages == []


# -- a large message -------------------------------------------------------------------------------------------

LINE = b"x" * 63 + b"\n"
BLOCK = LINE * 1024
BLOCKS = 25 * 1024 * 1024 // len(BLOCK)


def clamd_that_forgets(connection: socket.socket) -> None:
    """Takes a stream and keeps nothing of it but how long it was."""
    size, last = 0, b""
    while last[-4:] != END_OF_STREAM:
        data = connection.recv(65536)
        size, last = size + len(data), last[-4:] + data
    connection.sendall(b"stream: %d FOUND\n" % size)


def spamd_that_forgets(connection: socket.socket) -> None:
    """Takes a message, and answers with one as long."""
    while connection.recv(65536):
        pass
    connection.sendall(HEAD + b"Content-length: %d\r\n\r\n" % (len(BLOCK) * BLOCKS))
    for _ in range(BLOCKS):
        connection.sendall(BLOCK.upper())


@pytest.mark.parametrize(
    ("name", "scanner"), [("CLAMAV", clamd_that_forgets), ("SPAMD", spamd_that_forgets)], ids=["clamav", "spamassassin"]
)
def test_a_large_message_is_never_whole_in_memory(name: str, scanner: Callable[[socket.socket], None]) -> None:
    """25 MiB to a scanner, and back: over real sockets, and what all of it together allocates stays far below that."""
    stored: list[tuple[int, bytes]] = []

    class Sized(Discard):
        spools = True

        def message_end(self, spool: Spool) -> None:
            stored.append((spool.size, next(iter(spool.blocks()))[:64]))

    def scan() -> None:
        connection, _ = listening.accept()
        with connection:
            scanner(connection)

    def send() -> None:
        with theirs.makefile("rb") as replies:
            theirs.sendall(ENVELOPE + b"DATA\r\n")
            while not replies.readline().startswith(b"354 "):
                pass
            for _ in range(BLOCKS):
                theirs.sendall(BLOCK.replace(b"\n", b"\r\n"))
            theirs.sendall(b".\r\nQUIT\r\n")
            said.extend(replies)

    said: list[bytes] = []
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listening, ours, theirs:
        env = {f"{name}_HOST": "127.0.0.1", f"{name}_PORT": str(listening.getsockname()[1]), f"{name}_TIMEOUT": "60000"}
        plugin = "clamav" if name == "CLAMAV" else "spamassassin"
        front = Front(plugin, "accept", backend=Sized, env=env)
        threads = [threading.Thread(target=target, daemon=True) for target in (scan, send)]
        for thread in threads:
            thread.start()
        tracemalloc.start()
        try:
            blocking.serve_connection(ours, front.session)
            for thread in threads:
                thread.join(60)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 6 * 1024 * 1024
    size = len(BLOCK) * BLOCKS
    if plugin == "clamav":
        chunks = size // 65536
        scanned = len(b"nINSTREAM\n") + size + 4 * chunks + 4
        assert said[0] == b"554 5.7.0 Virus scan failed: %d FOUND\r\n" % scanned and stored == []
    else:
        assert said[0].startswith(b"250 ") and stored == [(size, LINE.upper())]
