"""``mailfront serve -c FILE``: workers, reloading, crashes, and how it starts and stops."""

import errno
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mailfront_io.generation import Worker as Process
from mailfront_io.generation import prepare
from mailfront_io.listening import BadAddress, inherited_sockets, open_listener, parse_listening_address
from mailfront_io.supervisor import Supervisor
from tests.certificates import authority
from tests.serving import DRIVERS, MAILFRONT, SECONDS, environment, queue_directory, queued

# What systemd does: the socket is descriptor 3, and the process is told its own number.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it does not come to that"
        time.sleep(0.01)


class Peer:
    """An SMTP client that says one line at a time. `before`: what it says before the greeting."""

    def __init__(self, address: tuple[str, int] | str, before: bytes = b"") -> None:
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(SECONDS)
            self._socket.connect(address)
        else:
            self._socket = socket.create_connection(address, SECONDS)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(before)
        self.greeting = self.reply()

    def reply(self) -> bytes:
        """The last line of the next reply."""
        while (line := self._file.readline())[3:4] == b"-":
            pass
        return line

    def say(self, line: bytes) -> bytes:
        self._socket.sendall(line)
        return self.reply()

    def begin_message(self) -> None:
        """As far as the middle of a message."""
        for line in (b"EHLO x\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@localhost>\r\n"):
            assert self.say(line)[:1] == b"2", line
        assert self.say(b"DATA\r\n")[:3] == b"354"
        self._socket.sendall(MESSAGE)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def greeting(address: tuple[str, int] | str) -> bytes:
    peer = Peer(address)
    peer.close()
    return peer.greeting


def children(process: int) -> list[int]:
    """The processes whose parent it is."""
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, check=False)
    return [int(word) for word in listing.stdout.split()]


class Running:
    """A supervisor and its workers. `text`: the configuration; HOST:0 in it becomes a free port."""

    def __init__(self, directory: Path, text: str, *options: str, **settings: object) -> None:
        self.directory = directory
        self.file = directory / "mailfront.toml"
        self.file.write_text(text)
        self._ports = directory / "ports"
        self._log = directory / "log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [MAILFRONT, "serve", "-c", self.file, "--port-file", self._ports, *options],
                env=environment(**settings), cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=log,
            )  # fmt: skip

    def __enter__(self) -> "Running":
        until(lambda: self._ports.exists() or self.process.poll() is not None)
        assert self._ports.exists(), self.log()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.process.poll() is None:
                self.process.terminate()
                assert self.process.wait(SECONDS) == 0, self.log()
            assert self.workers() == []
        finally:
            self.process.kill()
            self.process.wait()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        lines = (line.rpartition(":") for line in self._ports.read_text().splitlines())
        return [(host, int(port)) for host, _, port in lines if port.isdigit()]

    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[int]:
        """The processes whose parent the supervisor is."""
        return children(self.process.pid)

    def reload(self, text: str) -> None:
        """Replace the configuration, and wait until it is in force."""
        done = self.log().count("is in force")
        self.file.write_text(text)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.log().count("is in force") > done)


def configuration(queue: Path, greeting: str = "one", more: str = "") -> str:
    return f"""
        [server]
        hostname = "mx.example.org"
        [[listener]]
        protocol = "smtp"
        listen = ["127.0.0.1:0"]
        plugins = ["accept"]
        backend = "queuedir"
        {more}
        [listener.settings]
        queuedir = "{queue}"
        smtpgreeting = "{greeting}"
        """


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_reload_drops_no_session(driver: str, tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    with Running(tmp_path, configuration(queue), "--driver", driver) as running:
        [address] = running.addresses
        [worker] = running.workers()
        in_message, idle = Peer(address), Peer(address)
        assert in_message.greeting == idle.greeting == b"220 one ESMTP\r\n"
        in_message.begin_message()
        assert idle.say(b"EHLO x\r\n")[:3] == b"250"

        running.reload(configuration(queue, "two"))
        until(lambda: greeting(address) == b"220 two ESMTP\r\n")  # an old worker may still take a first one
        assert in_message.say(b".\r\n")[:3] == b"250"
        assert idle.say(b"NOOP\r\n")[:3] == b"250"
        assert worker in running.workers()
        for peer in (in_message, idle):
            assert peer.say(b"QUIT\r\n")[:3] == b"221"
            peer.close()
        until(lambda: worker not in running.workers())
        assert [message for _, _, message in queued(queue)] == [MESSAGE.replace(b"\r\n", b"\n")]


def test_many_reloads_in_a_row(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    with Running(tmp_path, configuration(queue), "--workers", "2") as running:
        for number in range(4):
            running.reload(configuration(queue, f"no{number}"))
            expected = b"220 no%d ESMTP\r\n" % number
            until(lambda expected=expected: greeting(running.addresses[0]) == expected)  # type: ignore[misc]
        until(lambda: len(running.workers()) == 2)


def test_a_wrong_configuration_changes_nothing(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    with Running(tmp_path, configuration(queue)) as running:
        before = running.workers()
        running.file.write_text(configuration(queue, "two", 'colour = "red"'))
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "the old configuration stays" in running.log())
        assert f"Reload: {running.file}:9: listener 1, colour: there is no such key" in running.log()
        running.file.write_text(configuration(queue, "three", 'certificate = "none.pem"'))
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.log().count("the old configuration stays") == 2)
        assert "certificate: none.pem does not exist" in running.log()
        assert greeting(running.addresses[0]) == b"220 one ESMTP\r\n"
        assert running.workers() == before


def test_addresses_come_and_go(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    path = tmp_path / "smtp"
    text = configuration(queue)
    with Running(tmp_path, text) as running:
        first = running.addresses[0]
        running.reload(text.replace('"127.0.0.1:0"', f'"127.0.0.1:0", "unix:{path}"'))
        assert greeting(str(path)) == b"220 one ESMTP\r\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert greeting(first) == b"220 one ESMTP\r\n"
        running.reload(text)
        assert not path.exists()
        assert greeting(first) == b"220 one ESMTP\r\n"


def test_a_new_mode_of_a_unix_socket_is_set_at_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    text = configuration(queue_directory(tmp_path)).replace('"127.0.0.1:0"', f'"127.0.0.1:0", "unix:{path}"')
    with Running(tmp_path, text) as running:
        peer, before = Peer(str(path)), path.stat()
        running.reload(text.replace("[listener.settings]", 'socket_mode = "0660"\n[listener.settings]'))
        assert path.stat().st_mode & 0o777 == 0o660
        assert path.stat().st_ino == before.st_ino
        assert greeting(str(path)) == peer.say(b"QUIT\r\n").replace(b"221 2.0.0 Good bye.", b"220 one ESMTP")
        peer.close()


def test_an_address_that_is_gone_refuses_connections(tmp_path: Path) -> None:
    """The new workers were made while it was open still."""
    text = configuration(queue_directory(tmp_path))
    with Running(tmp_path, text.replace('"127.0.0.1:0"', '"127.0.0.1:0", "[::1]:0"')) as running:
        kept, gone = running.addresses
        running.reload(text)
        assert greeting(kept) == b"220 one ESMTP\r\n"

        def refused() -> bool:
            try:
                socket.create_connection((gone[0].strip("[]"), gone[1]), SECONDS).close()
            except ConnectionRefusedError:
                return True
            return False

        until(refused)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("unix:/" + 200 * "x", "AF_UNIX path too long"),
        ("a..b:25", "this is no host name"),
        ("systemd:none", "systemd has handed over no socket of that name"),
        ("unix:/dev/null", "Address already in use"),
    ],
)
def test_why_an_address_cannot_be_had(address: str, why: str) -> None:
    with pytest.raises(BadAddress, match=why):
        open_listener(parse_listening_address(address))


def test_a_unix_socket_with_a_full_queue_is_in_use(tmp_path: Path) -> None:
    path = str(tmp_path / "smtp")
    with socket.socket(socket.AF_UNIX) as taken, socket.socket(socket.AF_UNIX) as waiting:
        taken.bind(path)
        taken.listen(0)
        waiting.connect(path)
        with pytest.raises(BadAddress, match="Address already in use"):
            open_listener(parse_listening_address(f"unix:{path}"))


@pytest.mark.parametrize("number", ["", "-1", "x", "99999999999999999999"])
def test_no_sockets_of_systemd(number: str) -> None:
    assert inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": number}) == {}
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == {}


def test_sockets_of_one_name() -> None:
    """As systemd hands them over: from descriptor 3 on, in a process of its own."""
    program = (
        "import os, socket\n"
        "from mailfront_io.listening import inherited_sockets\n"
        "kept = [socket.socket() for _ in range(3)]\n"
        "for number, each in enumerate(kept): os.dup2(each.fileno(), 40 + number)\n"
        "for each in kept: each.close()\n"
        "os.dup2(40, 3); os.dup2(41, 4); os.dup2(os.open('/dev/null', os.O_RDONLY), 5); os.dup2(42, 6)\n"
        "names = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '5', 'LISTEN_FDNAMES': 'smtp:smtp:null::more'}\n"
        "print({name: each.fileno() for name, each in inherited_sockets(names).items()})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "{'smtp': 3, 'smtp:2': 4, '4': 6}\n"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list the descriptors of a process")
def test_reloads_leave_no_descriptors_behind(tmp_path: Path) -> None:
    text = f'[log]\nfile = "{tmp_path / "mail.log"}"\n' + configuration(queue_directory(tmp_path))
    log = tmp_path / "mail.log"

    def descriptors(process: int) -> int:
        return len(list(Path(f"/proc/{process}/fd").iterdir()))

    def reload(text: str, outcome: str) -> None:
        done = log.read_text().count(outcome)
        running.file.write_text(text)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: log.read_text().count(outcome) > done)

    with Running(tmp_path, text) as running:
        reload(text, "is in force")
        until(lambda: len(running.workers()) == 1)
        before = descriptors(running.process.pid), descriptors(running.workers()[0])
        for _ in range(3):
            reload(text, "is in force")
            reload(text.replace('"127.0.0.1:0"', '"127.0.0.1:0", "systemd:none"'), "the old configuration stays")
            reload(text.replace("[server]", '[server]\nuser = "nobody-here"'), "the old configuration stays")
            reload(text.replace("backend", 'certificate = "none.pem"\nbackend'), "the old configuration stays")
        until(lambda: len(running.workers()) == 1)
        assert (descriptors(running.process.pid), descriptors(running.workers()[0])) == before


def test_a_storm_of_reloads(tmp_path: Path) -> None:
    """New workers are ended before they have handlers of their own; and that ends nobody else."""
    text = configuration(queue_directory(tmp_path))
    with Running(tmp_path, text, "--workers", "2") as running:
        peer = Peer(running.addresses[0])
        for _ in range(50):
            running.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        running.reload(configuration(tmp_path / "queue", "last"))
        until(lambda: greeting(running.addresses[0]) == b"220 last ESMTP\r\n")
        assert peer.say(b"QUIT\r\n")[:3] == b"221"
        peer.close()
        until(lambda: len(running.workers()) == 2)


def test_stopped_while_its_workers_start_it_ends_as_always(tmp_path: Path) -> None:
    """A client may be served, and tell it to stop, before the other workers are there."""
    running = Running(tmp_path, configuration(queue_directory(tmp_path)), "--workers", "4")
    until(lambda: children(running.process.pid))
    running.process.terminate()
    assert running.process.wait(SECONDS) == 0, running.log()
    assert children(running.process.pid) == []


def test_stopped_in_a_reload_it_leaves_no_unix_socket(tmp_path: Path) -> None:
    queue, path = queue_directory(tmp_path), tmp_path / "smtp"
    text = configuration(queue)
    with Running(tmp_path, text) as running:
        running.file.write_text(text.replace('"127.0.0.1:0"', f'"127.0.0.1:0", "unix:{path}"'))
        running.process.send_signal(signal.SIGHUP)
        until(path.exists)
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        assert not path.exists()


def test_a_certificate_is_read_again(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    certificate = tmp_path / "mail.pem"

    def issue() -> None:
        issued = authority().issue_cert("mx.example.org")
        issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))

    issue()
    text = configuration(queue, more=f'certificate = "{certificate}"')

    def served() -> str:
        peer = running.addresses[0]
        return subprocess.run(
            ["openssl", "s_client", "-starttls", "smtp", "-connect", f"{peer[0]}:{peer[1]}", "-showcerts"],
            input=b"QUIT\r\n", capture_output=True, timeout=SECONDS, check=False,
        ).stdout.decode().partition("-----BEGIN")[2].partition("-----END")[0]  # fmt: skip

    with Running(tmp_path, text) as running:
        in_message = Peer(running.addresses[0])
        in_message.begin_message()
        before = served()
        assert before
        issue()
        assert served() == before
        running.reload(text)
        assert served() != before
        assert in_message.say(b".\r\n")[:3] == b"250"
        in_message.close()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_worker_that_dies_is_replaced(driver: str, tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    with Running(tmp_path, configuration(queue), "--driver", driver, "--workers", "2") as running:
        before = running.workers()
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(now := running.workers()) == 2 and before[0] not in now)
        assert f"Worker {before[0]} died of signal 9: another is started" in running.log()
        assert greeting(running.addresses[0]) == b"220 one ESMTP\r\n"


def carried(worker: int) -> int:
    """Sockets that a worker has open, and processes that it has started."""
    sockets = 0
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets += os.readlink(descriptor).startswith("socket:")
    return sockets + len(children(worker))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list the descriptors of a process")
@pytest.mark.parametrize("driver", DRIVERS)
def test_workers_share_the_connections(driver: str, tmp_path: Path) -> None:
    """Each of two has 30 % at least of those that are open; how soon is the system's affair, which wakes them."""
    with Running(tmp_path, configuration(queue_directory(tmp_path)), "--driver", driver, "--workers", "2") as running:
        before = {worker: carried(worker) for worker in running.workers()}
        peers: list[Peer] = []
        while len(peers) < 200:
            peers += [Peer(running.addresses[0]) for _ in range(20)]
            counts = [carried(worker) - number for worker, number in before.items()]
            if sum(counts) == len(peers) and min(counts) >= 0.3 * len(peers):
                break
        for peer in peers:
            peer.close()
        assert len(counts) == 2
        assert min(counts) >= 0.3 * sum(counts), counts


@pytest.mark.parametrize("driver", DRIVERS)
def test_nobody_waits_for_a_worker_that_hangs(driver: str, tmp_path: Path) -> None:
    with Running(tmp_path, configuration(queue_directory(tmp_path)), "--driver", driver, "--workers", "2") as running:
        worker = running.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            peers = [Peer(running.addresses[0]) for _ in range(10)]
            assert all(peer.greeting == b"220 one ESMTP\r\n" for peer in peers)
        finally:
            os.kill(worker, signal.SIGCONT)
        for peer in peers:
            peer.close()


def test_when_a_worker_is_started_again_is_said(tmp_path: Path) -> None:
    """Unless that is soon: the pauses grow until even a slow machine says it."""
    with Running(tmp_path, configuration(queue_directory(tmp_path))) as running:
        for kills in range(1, 6):
            until(running.workers)
            os.kill(running.workers()[0], signal.SIGKILL)
            until(lambda kills=kills: running.log().count("died of signal 9: another is started") == kills)  # type: ignore[misc]
            if re.search(r"another is started in \d+ s$", running.log(), re.MULTILINE):
                break
        else:
            pytest.fail(running.log())


def test_a_worker_that_crashes_again_and_again_is_started_ever_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    (tmp_path / "mailfront.toml").write_text(configuration(queue_directory(tmp_path)))
    generation = prepare(str(tmp_path / "mailfront.toml"), {}, {"workers": 2}, {}, {})
    try:
        pauses = []
        for _ in range(9):
            worker = Process(1, 0, 0, None)
            now += 0.5
            when = generation.restart_after(worker)
            pauses.append(when - worker.started)
            now = when
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert generation.restart_after(Process(2, 0, 1, None)) == now + 1  # the other has a count of its own
        worker = Process(3, 0, 0, None)
        now += 61
        assert generation.restart_after(worker) == now
        worker = Process(4, 0, 0, None)
        assert generation.restart_after(worker) == now + 1
    finally:
        generation.close()


def test_workers_that_cannot_be_started_leave_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def none_left() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    (tmp_path / "mailfront.toml").write_text(configuration(queue_directory(tmp_path)))
    supervisor = Supervisor(str(tmp_path / "mailfront.toml"), {}, {"workers": 2})
    generation = prepare(str(tmp_path / "mailfront.toml"), {}, {"workers": 2}, {}, {})
    try:
        monkeypatch.setattr(os, "fork", none_left)
        opened = len(os.listdir("/proc/self/fd"))
        supervisor._start_missing(generation)
        assert len(os.listdir("/proc/self/fd")) == opened
        assert len(generation.missing) == 2 and generation.workers == []
        assert capfd.readouterr().err.count("Cannot start a worker: Resource temporarily unavailable") == 2
    finally:
        generation.close()
        for descriptor in (supervisor._wake, supervisor._wake_end):
            os.close(descriptor)


@pytest.mark.parametrize("user", ["", pytest.param('user = "nobody"', marks=AS_ROOT)])
def test_workers_end_with_their_supervisor(user: str, tmp_path: Path) -> None:
    text = configuration(queue_directory(tmp_path)).replace("[server]", f"[server]\n{user}")
    running = Running(tmp_path, text, "--workers", "2").__enter__()
    workers = running.workers()
    assert len(workers) == 2
    running.process.kill()
    running.process.wait()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_sigterm_gives_sessions_time(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    with Running(tmp_path, configuration(queue)) as running:
        in_message, idle = Peer(running.addresses[0]), Peer(running.addresses[0])
        in_message.begin_message()
        running.process.terminate()
        assert idle.reply()[:3] == b"421"
        assert in_message.say(b".\r\n")[:3] == b"250"
        assert running.process.wait(SECONDS) == 0
        for peer in (in_message, idle):
            peer.close()
        assert len(queued(queue)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[listener]\n", ":1: "),
        ("", "listener: there is none"),
        ('[server]\nuser = "nobody-of-that-name"\n', "there is no user nobody-of-that-name: make one"),
    ],
)
def test_what_cannot_be_served_is_said(text: str, words: str, tmp_path: Path) -> None:
    if text.startswith("[server]"):
        text += configuration(queue_directory(tmp_path)).replace("[server]", "").replace("hostname", "#")
    running = Running(tmp_path, text)
    assert running.process.wait(SECONDS) == 78
    assert words in running.log()
    assert "Traceback" not in running.log()


def test_an_address_in_use_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = configuration(queue_directory(tmp_path)).replace("127.0.0.1:0", f"127.0.0.1:{port}")
        running = Running(tmp_path, text)
        assert running.process.wait(SECONDS) == 78
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use: name another address" in running.log()


def test_an_address_in_use_at_a_reload_leaves_all_as_it_was(tmp_path: Path) -> None:
    text = configuration(queue_directory(tmp_path))
    with Running(tmp_path, text) as running, socket.create_server(("127.0.0.1", 0)) as taken:
        before = running.workers()
        port = taken.getsockname()[1]
        running.file.write_text(text.replace('"127.0.0.1:0"', f'"127.0.0.1:0", "127.0.0.1:{port}"'))
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "the old configuration stays" in running.log())
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in running.log()
        assert greeting(running.addresses[0]) == b"220 one ESMTP\r\n"
        assert running.workers() == before


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no IPv6")
@pytest.mark.parametrize("driver", DRIVERS)
def test_an_address_without_a_host_is_both_ipv4_and_ipv6(driver: str, tmp_path: Path) -> None:
    """A client is the same one whichever socket it came by: IPv4 addresses are logged as such."""
    text = configuration(queue_directory(tmp_path)).replace('"127.0.0.1:0"', '":0"')
    with Running(tmp_path, text, "--driver", driver) as running:
        [(host, port)] = running.addresses
        assert host == "[::]"
        assert greeting(("127.0.0.1", port)) == b"220 one ESMTP\r\n"
        assert greeting(("::1", port)) == b"220 one ESMTP\r\n"
        until(lambda: "smtp-1 from 127.0.0.1\n" in running.log() and "smtp-1 from ::1\n" in running.log())


def test_a_log_that_was_moved_is_opened_anew_at_a_reload(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    text = f'[log]\nfile = "{log}"\n' + configuration(queue_directory(tmp_path))
    with Running(tmp_path, text) as running:
        old = Peer(running.addresses[0])
        log.rename(tmp_path / "mail.log.1")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: log.exists() and "is in force" in log.read_text())
        old.say(b"MAIL FROM:<late@b.example>\r\n")  # its worker has the old file
        assert old.say(b"QUIT\r\n")[:3] == b"221"
        old.close()
        until(lambda: "bytes in: " in (tmp_path / "mail.log.1").read_text())
        assert log.stat().st_mode & 0o777 == 0o600
        # An old worker may still take a first one.
        until(lambda: greeting(running.addresses[0]) and "smtp-1 from 127.0.0.1" in log.read_text())


def test_the_grace_period_ends_what_does_not_end(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    text = configuration(queue).replace("[server]", "[server]\ngrace = 0.2")
    with Running(tmp_path, text) as running:
        in_message = Peer(running.addresses[0])
        in_message.begin_message()
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        in_message.close()
        assert queued(queue) == []


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(SECONDS)
        receiver.bind(str(tmp_path / "notify"))
        yield receiver


def test_systemd_hands_over_sockets_and_is_told(tmp_path: Path, notifications: socket.socket) -> None:
    queue = queue_directory(tmp_path)
    text = configuration(queue).replace("127.0.0.1:0", "systemd:smtp")
    (tmp_path / "mailfront.toml").write_text(text)
    listening = socket.create_server(("127.0.0.1", 0))
    process = subprocess.Popen(
        [sys.executable, "-c", HAND_OVER, str(listening.fileno()), MAILFRONT, "serve", "-c", "mailfront.toml"],
        env=environment(LISTEN_FDS=9, LISTEN_FDNAMES="smtp:smtp::", NOTIFY_SOCKET=tmp_path / "notify"), cwd=tmp_path,
        pass_fds=[listening.fileno()], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        try:
            assert notifications.recv(100) == b"READY=1"
            assert greeting(listening.getsockname()) == b"220 one ESMTP\r\n"
            process.send_signal(signal.SIGHUP)
            assert notifications.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert notifications.recv(100) == b"READY=1"
            process.terminate()
            assert notifications.recv(100) == b"STOPPING=1"
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    listening.close()


@AS_ROOT
def test_workers_are_nobody(tmp_path: Path) -> None:
    text = configuration(queue_directory(tmp_path)).replace("[server]", '[server]\nuser = "nobody"')
    with Running(tmp_path, text) as running:
        [worker] = running.workers()
        status = Path(f"/proc/{worker}/status").read_text()
        entry = pwd.getpwnam("nobody")
        assert f"Uid:\t{entry.pw_uid}\t{entry.pw_uid}\t{entry.pw_uid}\t{entry.pw_uid}\n" in status
        assert f"Gid:\t{entry.pw_gid}\t{entry.pw_gid}\t{entry.pw_gid}\t{entry.pw_gid}\n" in status
        assert greeting(running.addresses[0]) == b"220 one ESMTP\r\n"


def test_every_session_has_its_id_in_the_log(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    text = '[log]\nformat = "json"\n' + configuration(queue)
    with Running(tmp_path, text) as running:
        for sender in (b"a", b"b"):
            peer = Peer(running.addresses[0])
            peer.say(b"EHLO x\r\n")
            peer.say(b"MAIL FROM:<%s@b.example>\r\n" % sender)
            peer.say(b"QUIT\r\n")
            peer.close()
        until(lambda: running.log().count("bytes in:") == 2)
    lines = [json.loads(line) for line in running.log().splitlines()]
    sessions: dict[str, list[str]] = {}
    for line in lines:
        if "session" in line:
            assert line["listener"] == "smtp-1" and line["remote"] == "127.0.0.1"
            sessions.setdefault(line["session"], []).append(line["text"])
    assert [texts[0] for texts in sessions.values()] == ["MAIL FROM:<a@b.example>", "MAIL FROM:<b@b.example>"]
    assert all(texts[-1].startswith("bytes in: ") for texts in sessions.values())
