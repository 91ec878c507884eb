"""The fuzz harnesses: their seeds pass, they find a fault that is there, and a short run of each is clean."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import run
from mailfront_proto.smtp import SMTPServer
from mailfront_proto.smtp.body import DotDecoder

SCRIPT = Path(run.__file__)


@pytest.mark.parametrize("name", run.HARNESSES)
def test_seeds_pass(name: str) -> None:
    assert run.play_seeds(name) >= 10


def test_the_server_harness_sees_a_verdict_that_depends_on_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = SMTPServer.receive_data

    def moody(machine: SMTPServer, data: bytes) -> None:
        feed(machine, data.lower() if len(data) > 60 else data)

    monkeypatch.setattr(SMTPServer, "receive_data", moody)
    with pytest.raises(AssertionError):
        run.play_seeds("smtp_server")


def test_the_decoder_harness_sees_a_lost_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = DotDecoder.feed

    def lossy(decoder: DotDecoder, data: bytes) -> tuple[bytes, bytes | None]:
        decoded, rest = feed(decoder, data)
        return decoded.replace(b".", b""), rest

    monkeypatch.setattr(DotDecoder, "feed", lossy)
    with pytest.raises(AssertionError):
        run.play_seeds("dot_decoder")


def test_the_address_harness_sees_a_print_that_reads_back_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = importlib.import_module("fuzz.addresses")
    monkeypatch.setattr(
        addresses.parse_path.__globals__["Address"], "path", lambda self, syntax: b"<other@example.org>"
    )
    with pytest.raises(AssertionError):
        run.play_seeds("addresses")


def fuzz_for(seconds: int) -> str:
    command = [sys.executable, str(SCRIPT), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 4 * seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_short_run_finds_nothing() -> None:
    output = fuzz_for(3)
    if run.has_atheris():
        assert output.count("nothing found") == len(run.HARNESSES)
    else:
        assert output.endswith(run.NO_ATHERIS + "\n")


@pytest.mark.long
def test_a_long_run_finds_nothing() -> None:
    fuzz_for(300)


def test_an_unknown_harness_is_named() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no harness nonsense: take of smtp_server, addresses, dot_decoder" in done.stderr
