"""The plugin rbl against rbldnsd, on loopback, with lists of our own."""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import dns.message
import dns.query
import pytest

from tests.golden.recorded import PATH
from tests.peers.one_shot import OneShot
from tests.peers.programs import program
from tests.ports import unused_port

pytestmark = pytest.mark.peer

SECONDS = 60
LISTS = {
    "bl.example:ip4set:bl": "$TTL 300\n:127.0.0.4:Blocked by a list of ours, see http://bl.example/?$\n192.0.2.0/28\n",
    "bl.example:ip6trie:bl6": "$TTL 300\n:127.0.0.2:Six of ours, $\n2001:db8:1::/48\n",
    "wl.example:ip4set:wl": "$TTL 300\n:127.0.10.1:Welcome\n192.0.2.7\n",
    "other.example:ip4set:other": "$TTL 300\n:127.0.0.9:Other\n192.0.2.9\n",
    "bare.example:ip4set:bare": "$TTL 300\n:127.0.0.3:\n192.0.2.3\n",
}


@pytest.fixture(scope="module")
def name_server() -> Iterator[str]:
    """rbldnsd, as ``$NAMESERVERS`` has it."""
    path = program("rbldnsd")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        for zone, text in LISTS.items():
            (home / zone.rpartition(":")[2]).write_text(text)
        port = unused_port()
        command = [path, "-n", "-u", "nobody", "-b", f"127.0.0.1/{port}", "-w", str(home), *LISTS]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            if not answers(process, port):
                pytest.fail((home / "log").read_text())
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def answers(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until `process` answers, or has ended, or its time is over."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            dns.query.udp(dns.message.make_query("bl.example", "SOA"), "127.0.0.1", 1, port)
        except (OSError, dns.exception.DNSException):
            time.sleep(0.05)
        else:
            return process.poll() is None
    return False


def played(one_shot: OneShot, place: Path, name_server: str, env: Mapping[str, str]) -> tuple[list[str], str]:
    """The replies to MAIL, as a program of its own says them; and the log."""
    settings = {"PATH": PATH, "TCPLOCALHOST": "mx.example.org", "NAMESERVERS": name_server, "RBL_DEBUG": "", **env}
    said = b"HELO c\r\nMAIL FROM:<a@b>\r\nQUIT\r\n"
    run = one_shot.run(["mailfront", "smtp", "discard", "rbl", "accept"], settings, place, said)
    return run.stdout.decode().split("\r\n")[2:-2], run.stderr.decode()


TEXT = "Blocked by a list of ours, see http://bl.example/?192.0.2.{}"


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize(
    ("client", "lists", "text"),
    [
        ("192.0.2.1", "bl.example", TEXT.format(1)),
        ("192.0.2.16", "bl.example", None),
        ("192.0.2.9", "bl.example,other.example", "Other"),
        ("192.0.2.9", "other.example,bl.example", TEXT.format(9)),
        ("192.0.2.7", "bl.example", None),
        ("192.0.2.8", "other.example", None),
    ],
)
def test_lists(
    one_shot: OneShot, tmp_path: Path, name_server: str, profile: str, client: str, lists: str, text: str | None
) -> None:
    env = {"TCPREMOTEIP": client, "RBL_BLACKLISTS": lists, "RBL_WHITELISTS": "wl.example"}
    replies, log = played(one_shot, tmp_path, name_server, {**env, "MAILFRONT_PROFILE": profile})
    code = "451 " if profile == "compat" else "451 4.3.0 "
    assert replies == [f"{code}Blocked: {text}" if text else "250 2.1.0 Sender accepted."]
    assert ("rbl: blacklisted by" in log) == (text is not None)
    assert ("rbl: whitelisted by wl.example: Welcome" in log) == (client == "192.0.2.7")


@pytest.mark.parametrize(
    ("client", "text"), [("2001:db8:1::7", "Six of ours, 2001:db8:1::7"), ("2001:db8:2::7", None)]
)
def test_six(one_shot: OneShot, tmp_path: Path, name_server: str, client: str, text: str | None) -> None:
    env = {"PROTO": "TCP6", "TCP6REMOTEIP": client, "RBL_BLACKLISTS": "bl.example"}
    replies, _ = played(one_shot, tmp_path, name_server, env)
    assert replies == [f"451 4.3.0 Blocked: {text}" if text else "250 2.1.0 Sender accepted."]


def test_a_list_without_texts(one_shot: OneShot, tmp_path: Path, name_server: str) -> None:
    env = {"TCPREMOTEIP": "192.0.2.3", "RBL_BLACKLISTS": "bare.example"}
    replies, _ = played(one_shot, tmp_path, name_server, env)
    assert replies == ["451 4.3.0 Blocked: listed by bare.example"]


def test_a_zone_that_the_server_does_not_have(one_shot: OneShot, tmp_path: Path, name_server: str) -> None:
    """rbldnsd refuses to answer for it: DNS trouble, which takes the greeting's place, or passes."""
    env = {"TCPREMOTEIP": "192.0.2.1", "RBL_BLACKLISTS": "none.example"}
    settings = {"PATH": PATH, "NAMESERVERS": name_server, **env}
    run = one_shot.run(["mailfront", "smtp", "discard", "rbl", "accept"], settings, tmp_path, b"QUIT\r\n")
    assert run.stdout == b"451 4.3.0 DNS error doing RBL lookup\r\n"
    assert b"REFUSED" in run.stderr
    run = one_shot.run(["mailfront", "smtp", "discard", "rbl,failure=pass", "accept"], settings, tmp_path, b"QUIT\r\n")
    assert run.stdout.startswith(b"220 ")
