"""The programs in docs/examples run."""

import os
import shutil
import smtplib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.running import SECONDS, environment
from tests.peers.postfix_server import postfix
from tests.serving import queue_directory, queued, serving

EXAMPLES = ROOT / "docs" / "examples"

MESSAGE = "Subject: hello\r\n\r\n.Hello.\r\n"


@pytest.mark.parametrize("name", ["embed_blocking_socket.py", "embed_asyncio_protocol.py", "embed_trio_stream.py"])
def test_an_embedded_server_takes_a_message(name: str) -> None:
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), "0"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        timer = threading.Timer(SECONDS, server.kill)
        timer.start()
        assert server.stdout is not None
        listening = server.stdout.readline()
        with smtplib.SMTP("127.0.0.1", int(listening.rpartition(" ")[2]), timeout=SECONDS) as client:
            refused = client.sendmail("me@example.net", ["you@example.org"], MESSAGE)
            assert refused == {}
            if name == "embed_blocking_socket.py":
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    client.sendmail("me@example.net", ["you@example.com"], MESSAGE)
        output, errors = server.communicate()
        timer.cancel()
    assert server.returncode == 0 and errors == "", errors
    assert output == MESSAGE.replace("\r\n", "\n")


CAPTURE = (
    b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
    b"Subject: x\r\n\r\nhello\n.\n\r\n.\r\nQUIT\r\n"
)


def replay(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "capture_replay.py"), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def test_a_capture_is_replayed(tmp_path: Path) -> None:
    capture = tmp_path / "capture"
    capture.write_bytes(CAPTURE)
    lines = replay(str(capture)).stdout.splitlines()
    assert "S: 250 2.6.0 Message accepted." in lines
    assert "   MessageEnd()" in lines and lines[-1].startswith("   ConnectionClosed(reason='QUIT'")
    assert not any("Refused" in line for line in lines)


def test_the_profiles_see_another_end_of_the_message(tmp_path: Path) -> None:
    """In the compat profile the bare LF . LF ends it, and what follows is commands."""
    capture = tmp_path / "capture"
    capture.write_bytes(CAPTURE)
    assert any("Refused" in line for line in replay("--compat", str(capture)).stdout.splitlines())


def test_the_replay_says_how_it_is_used() -> None:
    assert replay().returncode == 2


def test_the_handler_that_has_migrated() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "migrate_from_aiosmtpd.py")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "a@example.net to b@example.com: hello\n5.7.1 not relaying to that domain\n"


def test_the_plugin_and_its_test() -> None:
    options = ["-q", "-c", os.devnull, "--rootdir", str(EXAMPLES), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(EXAMPLES / "test_policy_plugin.py")],
        cwd=EXAMPLES,
        env=environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout


def test_the_plugin_is_found_by_its_name(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text("* bob@example.org accept\n")
    done = subprocess.run(
        ["mailfront", "smtp", "discard", "policy_plugin:Policy"],
        input="EHLO me\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<eve@example.org>\r\n"
        "QUIT\r\n",
        env=environment() | {"PYTHONPATH": str(EXAMPLES), "POLICY_FILE": str(policy)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert [line[:9] for line in done.stdout.splitlines()[-4:]] == ["250 2.1.0", "250 2.1.5", "550 5.1.0", "221 2.0.0"]


@contextmanager
def before_queue_filter(next_hop: int) -> Iterator[int]:
    """The filter in front of a server at `next_hop`; gives its port."""
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "before_queue_filter.py"), "127.0.0.1:0", f"127.0.0.1:{next_hop}"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            assert process.stderr is not None
            yield int(process.stderr.readline().rpartition(" ")[2])
        finally:
            timer.cancel()
            process.terminate()
            process.communicate()
        assert process.returncode == 0


def with_attachment(name: str) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "hello"
    message.set_content("Hello.\n")
    message.add_attachment(b"x", maintype="application", subtype="octet-stream", filename=name)
    return message


def send_both_through(port: int) -> None:
    """One message with a picture, which arrives, and one with a program, which does not."""
    with smtplib.SMTP("127.0.0.1", port, timeout=SECONDS) as client:
        assert client.send_message(with_attachment("cat.png"), "a@b.example", ["c@d.example"]) == {}
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.send_message(with_attachment("größe.pdf.exe"), "a@b.example", ["c@d.example"])
    assert refused.value.smtp_code == 554 and b"no programs, please" in refused.value.smtp_error


def test_the_before_queue_filter(tmp_path: Path) -> None:
    queue = queue_directory(tmp_path)
    with (
        serving(tmp_path, "smtp", "queuedir", "accept", settings={"QUEUEDIR": queue}) as [(_, next_hop)],
        before_queue_filter(next_hop) as port,
    ):
        send_both_through(port)
        with smtplib.SMTP("127.0.0.1", port, timeout=SECONDS) as client:
            message = b'Content-Disposition: attachment; filename="=?none?q?a?="\n\nx\n'
            with pytest.raises(smtplib.SMTPDataError, match="cannot be read"):
                client.sendmail("a@b.example", ["c@d.example"], message)
    [(sender, recipients, text)] = queued(queue)
    assert (sender, recipients) == ("a@b.example", ["c@d.example"]) and b'filename="cat.png"' in text


@pytest.mark.peer
def test_the_before_queue_filter_of_postfix() -> None:
    """Postfix asks it while its client waits, and hands on to another Postfix what it lets pass."""
    with postfix() as behind, before_queue_filter(behind.port) as port:
        with postfix(f"smtpd_proxy_filter = 127.0.0.1:{port}\n") as before:
            send_both_through(before.port)
        [delivered] = behind.delivered()
    assert delivered.sender == "a@b.example" and b'filename="cat.png"' in delivered.message


PLANTED = {
    "nothing": ("", "", ""),
    "dots that stay doubled": ('line.removeprefix(b".") + b"\\r\\n"', 'line + b"\\r\\n"', "a_message_arrives"),
    "a byte that is not ASCII": ('"ascii", "replace"', '"ascii"', "no_bytes_bring_it_down"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_fuzzing_session_finds_a_planted_fault(fault: str, tmp_path: Path) -> None:
    found, planted, named = PLANTED[fault]
    server = (EXAMPLES / "tiny_server.py").read_text(encoding="utf-8")
    assert found in server
    (tmp_path / "tiny_server.py").write_text(server.replace(found, planted) if found else server, encoding="utf-8")
    shutil.copy(EXAMPLES / "test_tiny_server.py", tmp_path)
    options = ["-q", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "--hypothesis-seed=1"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_tiny_server.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    if fault == "nothing":
        assert done.returncode == 0, done.stdout
    else:
        assert done.returncode == 1 and f"FAILED test_tiny_server.py::test_{named}" in done.stdout, done.stdout
