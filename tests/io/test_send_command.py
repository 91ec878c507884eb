"""``mailfront send`` as a process of its own: output, exit codes, messages byte for byte, secrets."""

import base64
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from email import message_from_bytes
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import certificates
from tests.serving import MAILFRONT, SECONDS, environment, queue_directory, queued, serving

PASSWORD = "correct horse battery"


class Ran(NamedTuple):
    exit: int
    stdout: str
    stderr: str


def send(*words: object, stdin: bytes = b"", directory: Path | None = None) -> Ran:
    run = subprocess.run(
        [MAILFRONT, "send", *map(str, words)],
        input=stdin,
        capture_output=True,
        env=environment(),
        cwd=directory,
        timeout=SECONDS,
        start_new_session=True,  # and with that no terminal
    )
    return Ran(run.returncode, run.stdout.decode(), run.stderr.decode())


class Place(NamedTuple):
    directory: Path
    queue: Path
    port: int
    submission: int

    @property
    def smtp(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def login(self) -> list[object]:
        return ["--user", "me", "--password-file", self.directory / "password"]

    @property
    def trust(self) -> list[object]:
        return ["--ca", self.directory / "ca.pem"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server in clear and one in TLS, both for the same queue and users."""
    directory = tmp_path_factory.mktemp("servers")
    queue = queue_directory(directory)
    (directory / "users").write_text(f"me:{PASSWORD}\n")
    (directory / "password").write_text(PASSWORD + "\n")
    (directory / "wrong").write_text("wrong\n")
    (directory / "empty").write_text("\n")
    certificates.authority().cert_pem.write_to_path(str(directory / "ca.pem"))
    settings = {
        "QUEUEDIR": queue,
        "TLS_CERTFILE": certificates.write_pem(directory, "localhost"),
        "AUTH_STORE": f"static:{directory / 'users'}",
        "ACCEPT_DOMAINS": "here.example",
    }
    line = ["smtp", "queuedir", "authenticate", "accept-domains"]
    with (
        serving(_sub(directory, "clear"), *line, settings=settings) as [(_, port)],
        serving(_sub(directory, "tls"), *line, settings={**settings, "TLS_IMMEDIATE": ""}) as [(_, submission)],
    ):
        yield Place(directory, queue, port, submission)


def _sub(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return directory / name


TO = ("--to", "you@here.example")

MESSAGES = {
    "plain": b"Subject: x\r\n\r\nHello.\r\n",
    "dots": b"Subject: x\n\n.\n..\n.end\n",
    "8-bit, no final line end": b"Subject: x\n\n\xff\xfe",
    "long lines": b"x" * 100_000 + b"\n" + b"." * 70_000 + b"\n",
    "empty": b"",
}


@pytest.mark.parametrize(("way", "driver"), [("file", "blocking"), ("stdin", "asyncio"), ("pipe", "trio")])
@pytest.mark.parametrize("name", MESSAGES)
def test_messages_byte_for_byte(name: str, way: str, driver: str, place: Place, tmp_path: Path) -> None:
    body = MESSAGES[name]
    path = tmp_path / "letter.eml"
    path.write_bytes(body)
    words = [place.smtp, "--from", "me@x", *TO, "--driver", driver, "--message"]
    if way == "stdin":
        command = f"{shlex.join(map(str, [MAILFRONT, 'send', *words]))} - <{path}"
        run = subprocess.run(command, shell=True, capture_output=True, env=environment(), timeout=SECONDS)
        ran = Ran(run.returncode, run.stdout.decode(), run.stderr.decode())
    else:
        ran = send(*words, path) if way == "file" else send(*words, "-", stdin=body)
    assert ran.exit == 0 and ran.stderr == "", ran
    assert re.fullmatch(r"you@here\.example: 250 2\.6\.0 .*\n", ran.stdout)
    expected = body.replace(b"\r\n", b"\n")
    if expected and not expected.endswith(b"\n"):
        expected += b"\n"
    assert queued(place.queue) == [("me@x", ["you@here.example"], expected)]


def test_a_generated_message(place: Place) -> None:
    ran = send(place.smtp, *TO, "--to", "them@here.example")
    assert ran.exit == 0 and ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert [line.partition(": 250 ")[0] for line in lines] == ["you@here.example", "them@here.example"]
    [(sender, recipients, body)] = queued(place.queue)
    assert recipients == ["you@here.example", "them@here.example"]
    message = message_from_bytes(body)
    assert message["From"] == f"<{sender}>" and "@" in sender
    assert message["To"] == "<you@here.example>, <them@here.example>"
    assert set(message.keys()) == {"Date", "Message-ID", "From", "To", "Subject"}
    assert re.fullmatch(r"<\S+@\S+>", message["Message-ID"])
    assert place.smtp in str(message.get_payload())


def test_the_null_sender(place: Place) -> None:
    assert send(place.smtp, *TO, "--from", "").exit == 0
    [(sender, _, body)] = queued(place.queue)
    assert sender == "" and b"From: <mailer-daemon@" in body


def test_lmtp(place: Place, tmp_path: Path) -> None:
    settings = {"QUEUEDIR": place.queue, "ACCEPT_DOMAINS": "here.example"}
    with serving(tmp_path, "lmtp", "queuedir", "accept-domains", settings=settings) as [(_, port)]:
        ran = send(f"127.0.0.1:{port}", "--lmtp", *TO, "--to", "who@elsewhere.example", "--from", "a@x")
    assert ran.exit == 1
    assert ran.stdout.startswith("you@here.example: 250 ") and "\nwho@elsewhere.example: 550 5.1.0 " in ran.stdout
    assert [recipients for _, recipients, _ in queued(place.queue)] == [["you@here.example"]]


# -- exit codes -------------------------------------------------------------------------------------------


def test_exit_1_for_some_refused_for_good(place: Place) -> None:
    ran = send(place.smtp, *TO, "--to", "who@elsewhere.example")
    assert ran.exit == 1 and len(ran.stdout.splitlines()) == 2
    assert len(queued(place.queue)) == 1


def test_exit_1_for_a_wrong_password(place: Place) -> None:
    wrong = ["--user", "me", "--password-file", place.directory / "wrong"]
    ran = send(f"localhost:{place.port}", *TO, *wrong, *place.trust)
    assert ran.exit == 1 and ran.stdout == "" and "user name and password" in ran.stderr


def test_exit_1_for_a_password_that_would_go_in_clear(place: Place) -> None:
    ran = send(place.smtp, *TO, *place.login, "--starttls", "none")
    assert ran.exit == 1 and "in clear" in ran.stderr and "--allow-clear" in ran.stderr


def test_exit_1_for_a_host_that_does_not_exist() -> None:
    ran = send("a..b", *TO)
    assert ran.exit == 1 and "see that its name is right" in ran.stderr


def test_exit_75_when_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ran = send(f"127.0.0.1:{unused.getsockname()[1]}", *TO)
    assert ran.exit == 75 and "see that a server listens there" in ran.stderr


@pytest.mark.parametrize("driver", ["blocking", "asyncio", "trio"])
@pytest.mark.parametrize("last", [b"451 4.3.0 Later\r\n", b""], ids=["451", "lost"])
def test_exit_75_for_temporary_refusals_and_lost_connections(last: bytes, driver: str) -> None:
    with Answering([(b"220 x\r\n", b"\n"), (b"250 x\r\n", b"\n"), (b"250 x\r\n", b"\n"), (b"250 x\r\n", b"\n"),
                    (b"354 x\r\n", b"\r\n.\r\n"), (last, b"")]) as server:  # fmt: skip
        ran = send(server.address, *TO, "--driver", driver)
    assert ran.exit == 75
    assert ran.stdout.startswith("you@here.example: 451 4.")


def test_exit_75_at_a_deadline() -> None:
    with Answering([(b"220 x\r\n", b"\n"), (b"", b"never")]) as server:
        ran = send(server.address, *TO, "--timeout", "0.2")
    assert ran.exit == 75 and "No answer to EHLO within 0.2 seconds" in ran.stderr


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_exit_75_for_a_certificate_that_is_not_trusted(name: str, place: Place) -> None:
    trust = place.trust if name == "127.0.0.1" else []
    ran = send(f"{name}:{place.port}", *TO, "--starttls", *trust)
    assert ran.exit == 75 and "certificate" in ran.stderr and "--no-verify" in ran.stderr
    assert queued(place.queue) == []


def test_exit_75_for_tls_that_must_be_and_is_not() -> None:
    with Answering([(b"220 x\r\n", b"\n"), (b"250 x\r\n", b"QUIT\r\n"), (b"221 x\r\n", b"")]) as server:
        ran = send(server.address, *TO, "--starttls")
    assert ran.exit == 75 and "offers no STARTTLS" in ran.stderr


HERE = "127.0.0.1:2525"
USAGE: list[tuple[Sequence[str], str]] = [
    ([], "HOST"),
    ([HERE], "--to ADDRESS"),
    ([HERE, "--to"], "--to"),
    ([HERE, *TO, "--nonsense"], "--nonsense"),
    ([HERE, "another", *TO], "another"),
    (["127.0.0.1:http", *TO], "HOST:PORT"),
    (["127.0.0.1:0", *TO], "HOST:PORT"),
    (["127.0.0.1:65536", *TO], "HOST:PORT"),
    (["127.0.0.1:१२", *TO], "HOST:PORT"),
    ([":25", *TO], "HOST:PORT"),
    ([HERE, *TO, "--tls", "--starttls"], "--tls and --starttls"),
    ([HERE, *TO, "--starttls=maybe"], "--starttls"),
    ([HERE, *TO, "--timeout", "0"], "--timeout"),
    ([HERE, *TO, "--timeout", "nan"], "--timeout"),
    ([HERE, *TO, "--timeout", "soon"], "--timeout"),
    ([HERE, *TO, "--driver", "horse"], "--driver"),
    ([HERE, *TO, "--password", "x"], "--password"),
    ([HERE, *TO, "--password-file", "x"], "--user"),
    ([HERE, *TO, "--auth-mechanism", "PLAIN"], "--user"),
    ([HERE, *TO, "--user", "me"], "--password-file"),
    ([HERE, "--to", "a@x\r\nRSET"], "is no address"),
    ([HERE, *TO, "--from", "a@x>\n"], "is no address"),
    ([HERE, *TO, "--helo", "x\r\nRSET"], "the name is"),
    (["127.0.0.1:25", *TO, "--lmtp"], "port 25"),
    ([HERE, *TO, "--notify", "always"], "neither never nor"),
    ([HERE, *TO, "--notify", "never,delay"], "neither never nor"),
    ([HERE, *TO, "--ret", "some"], "--ret"),
    ([HERE, *TO, "--envid", "a\r\nRSET"], "cannot be sent"),
    ([HERE, *TO, "--require-tls", "--starttls=none"], "REQUIRETLS without TLS"),
    ([HERE, *TO, "--require-tls", "--no-verify"], "any certificate"),
]


@pytest.mark.parametrize(("words", "said"), USAGE, ids=[" ".join(words) for words, _ in USAGE])
def test_exit_64(words: Sequence[str], said: str) -> None:
    ran = send(*words)
    assert ran.exit == 64 and ran.stdout == ""
    assert ran.stderr.startswith("mailfront send: ") and said in ran.stderr
    assert ran.stderr.count("\n") == 1 and ran.stderr.strip().isprintable()


def test_exit_78(place: Place, tmp_path: Path) -> None:
    for words in (
        ["--message", tmp_path / "missing"],
        ["--message", tmp_path],
        ["--user", "me", "--password-file", tmp_path / "missing"],
        ["--user", "me", "--password-file", place.directory / "empty"],
        ["--starttls", "--ca", tmp_path / "missing"],
        ["--starttls", "--ca", place.directory / "users"],
    ):
        ran = send(place.smtp, *TO, *words)
        assert ran.exit == 78 and ran.stdout == "", ran
        assert ran.stderr.startswith(f"mailfront send: {words[-2]}") and ran.stderr.count("\n") == 1
    assert queued(place.queue) == []


# -- TLS, AUTH, and what is shown -------------------------------------------------------------------------


@pytest.mark.parametrize(("driver", "mechanism"), [("blocking", None), ("asyncio", "PLAIN"), ("trio", "login")])
def test_submission(driver: str, mechanism: str | None, place: Place) -> None:
    chosen = [] if mechanism is None else ["--auth-mechanism", mechanism]
    words = [*TO, *place.login, *chosen, *place.trust, "--transcript", "--timing", "--driver", driver]
    ran = send(f"localhost:{place.port}", *words)
    assert ran.exit == 0
    assert len(queued(place.queue)) == 1
    used = mechanism.upper() if mechanism else "PLAIN"
    assert f"C: AUTH {used}" in ran.stderr and "C: STARTTLS" in ran.stderr and "*: TLSv1.3" in ran.stderr
    for secret in (PASSWORD, _base64(PASSWORD), _base64(f"\0me\0{PASSWORD}")):
        assert secret not in ran.stderr + ran.stdout  # H48
    steps = re.findall(r"^ *\d+\.\d{4} s  (\S+)$", ran.stderr, re.MULTILINE)
    assert steps == [
        *("connect", "greeting", "EHLO", "STARTTLS", "TLS", "EHLO", "AUTH"),
        *("MAIL", "RCPT", "message", ".", "QUIT"),
    ]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_implicit_tls(place: Place) -> None:
    ran = send(f"127.0.0.1:{place.submission}", *TO, "--tls", "--tls-name", "localhost", *place.trust, *place.login)
    assert ran.exit == 0
    assert len(queued(place.queue)) == 1


@pytest.mark.parametrize("order", [0, 1, 2])
def test_starttls_without_a_value_stands_anywhere(order: int, place: Place) -> None:
    words: list[object] = [place.smtp, *TO, "--no-verify", "--transcript"]
    words.insert(order if order != 2 else len(words), "--starttls")
    ran = send(*words)
    assert ran.exit == 0 and "*: TLSv1.3" in ran.stderr
    queued(place.queue)


def test_auth_in_clear_where_it_is_asked_for(place: Place, tmp_path: Path) -> None:
    with Answering(
        [(b"220 x\r\n", b"\n"), (b"250-x\r\n250 AUTH PLAIN\r\n", b"\n"), (b"235 x\r\n", b"\n"), (b"550 x\r\n", b"\n")]
    ) as server:
        ran = send(server.address, *TO, *place.login, "--allow-clear")
    assert ran.exit == 1 and ran.stdout == "you@here.example: 550 x (the answer to MAIL)\n"
    assert _base64(f"\0me\0{PASSWORD}").encode() in server.heard


def test_what_a_server_says_is_shown_escaped() -> None:
    with Answering([(b"220 x\r\n", b"\n"), (b"250 x\r\n", b"\n"), (b"550-\x1b[31m\r\n550 \xff\r\n", b"\n")]) as server:
        ran = send(server.address, *TO, "--transcript")
    assert ran.stdout == "you@here.example: 550 \\x1b[31m / \\udcff (the answer to MAIL)\n"
    assert "\x1b" not in ran.stderr


REPORTS = ["--notify", "success,failure", "--ret", "hdrs", "--envid", "order 17"]


def test_reports_are_asked_for() -> None:
    hello = b"250-x\r\n250-PIPELINING\r\n250 DSN\r\n"
    with Answering([(b"220 x\r\n", b"\n"), (hello, b"DATA\r\n"), (b"550 x\r\n" * 3, b"")]) as server:
        ran = send(server.address, *TO, "--from", "a@x", *REPORTS)
    assert ran.exit == 1
    assert b"MAIL FROM:<a@x> SIZE" not in server.heard
    assert b"MAIL FROM:<a@x> RET=HDRS ENVID=order+2017\r\n" in server.heard
    assert b"RCPT TO:<you@here.example> NOTIFY=SUCCESS,FAILURE\r\n" in server.heard


def test_it_is_said_when_nobody_will_report() -> None:
    script = [(b"220 x\r\n", b"\n"), (b"250 x\r\n", b"\n"), (b"250 x\r\n", b"\n"), (b"250 x\r\n", b"\n")]
    script += [(b"354 x\r\n", b"\r\n.\r\n"), (b"250 x\r\n", b"\n"), (b"221 x\r\n", b"")]
    with Answering(script) as server:
        ran = send(server.address, *TO, *REPORTS)
    assert ran.exit == 0 and "offers no DSN" in ran.stderr
    assert b"NOTIFY" not in server.heard and b"RET" not in server.heard


def test_exit_1_for_what_the_server_cannot_have(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_bytes("Subject: \xe9\n\nHello\n".encode())
    script = [(b"220 x\r\n", b"\n"), (b"250-x\r\n250 8BITMIME\r\n", b"QUIT\r\n"), (b"221 x\r\n", b"")]
    with Answering(script) as server:
        ran = send(server.address, *TO, "--message", path)
    assert ran.exit == 1 and ran.stdout.startswith("you@here.example: 554 5.6.7 ")
    with Answering([*script[:1], (b"250-x\r\n250 8BITMIME\r\n", b"\n"), (b"550 x\r\n", b"QUIT"), script[2]]) as server:
        ran = send(server.address, *TO, "--message", path, "--eight-bit-headers")
    assert ran.exit == 1 and ran.stdout == "you@here.example: 550 x (the answer to MAIL)\n"
    with Answering(script) as server:
        ran = send(server.address, *TO, "--message", path, "--binary")
    assert ran.stdout.startswith("you@here.example: 554 5.6.3 ")
    ran = send(f"localhost:{place.port}", *TO, "--require-tls", *place.trust, "--helo", "x")
    offered = ran.exit == 0
    assert offered or ran.stdout.startswith("you@here.example: 550 5.7.30 ")
    queued(place.queue)


def test_data_in_place_of_bdat(place: Place) -> None:
    for words, used in (([], "C: BDAT "), (["--data"], "C: DATA")):
        ran = send(place.smtp, *TO, "--transcript", *words)
        assert ran.exit == 0 and used in ran.stderr
    assert ("C: BDAT" in ran.stderr) is False
    assert len(queued(place.queue)) == 2


def test_help_names_every_exit_code_and_default_port() -> None:
    ran = send("--help")
    assert ran.exit == 0 and ran.stderr == ""
    for word in ("--message", "--transcript", "75", "64", "78", "465", "587", "24"):
        assert word in ran.stdout


# -- the development server -------------------------------------------------------------------------------


def test_the_lines_that_the_development_server_prints_work_as_printed(tmp_path: Path) -> None:
    ports = tmp_path / "ports"
    words: list[str | Path] = ["serve", "--listen", "127.0.0.1:0", "--port-file", ports, "--data", "data"]
    with subprocess.Popen(
        [MAILFRONT, *words], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stdout is not None
            said = ""
            while not said.endswith("/new/*\n"):
                line = server.stdout.readline().decode()
                assert line, said
                said += line
            lines = said.partition("Try, in another terminal:")[2].replace("\\\n", " ").strip().splitlines()
            assert len(lines) == 3
            for line in lines:
                run = subprocess.run(
                    line, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=SECONDS
                )
                assert run.returncode == 0 and run.stderr == "", (line, run)
            assert run.stdout.count("Subject: A message from mailfront send") == 2
        finally:
            server.terminate()


# -- a server that says what it is told -------------------------------------------------------------------


class Answering:
    """Accepts one connection; says each answer, then reads until it has heard what follows it."""

    def __init__(self, script: Sequence[tuple[bytes, bytes]]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SECONDS)
        self._thread = threading.Thread(target=self._answer)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = b""

    def __enter__(self) -> "Answering":
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._thread.join()
        self._listener.close()

    def _answer(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(SECONDS)
            for answer, until in self._script:
                connection.sendall(answer)
                start = len(self.heard)
                while until not in self.heard[start:]:
                    data = connection.recv(65536)
                    if not data:
                        return
                    self.heard += data
