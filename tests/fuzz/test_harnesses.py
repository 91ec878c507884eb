"""The fuzz harnesses: their seeds pass, they find a fault that is there, and a short run of each is clean."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import faults, oracles, run
from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.smtp import SMTPServer
from mailfront_proto.smtp.body import DotDecoder

SCRIPT = Path(run.__file__)


@pytest.mark.parametrize("name", run.HARNESSES)
def test_seeds_pass(name: str) -> None:
    assert run.play_seeds(name) >= 10
    assert (SCRIPT.parent / f"{name}.dict").read_text(encoding="latin-1").strip()


def test_the_machine_oracle_sees_a_verdict_that_depends_on_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = SMTPServer.receive_data

    def moody(machine: SMTPServer, data: bytes) -> None:
        feed(machine, data.lower() if len(data) > 60 else data)

    monkeypatch.setattr(SMTPServer, "receive_data", moody)
    with pytest.raises(AssertionError, match="cut as"):
        run.play_seeds("smtp_server")


def test_the_machine_oracle_sees_memory_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    read_line = ReceiveBuffer.read_line
    monkeypatch.setattr(ReceiveBuffer, "read_line", lambda buffer, limit: read_line(buffer, 10_000_000))
    check = importlib.import_module("fuzz.smtp_server").check
    wire = b"EHLO x\r\n" + b"x" * 40
    check(bytes([1, 1, 0]) + wire)
    with pytest.raises(AssertionError, match="bytes held after"):
        check(bytes([1, oracles.MEMORY[0], 0]) + wire)


CLIENTS = {
    "imap_client": b"\x04%c\0* OK x\r\n" + b"* CAPABILITY x" * 20,
    "pop3_client": b"\x40%c\0" + b"+OK " * 20,
    "qmtp_client": b"\x00%c9999999:" + b"K" * 20,
}
"""Harness to an input, where the byte that says how to cut is missing."""


@pytest.mark.parametrize("name", CLIENTS)
def test_the_machine_oracle_sees_memory_that_grows_in_clients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = importlib.import_module(f"fuzz.{name}").check
    wire = CLIENTS[name] % oracles.MEMORY[0]
    check(wire)
    read_line = ReceiveBuffer.read_line
    monkeypatch.setattr(ReceiveBuffer, "read_line", lambda buffer, limit: read_line(buffer, 10_000_000))
    monkeypatch.setattr("mailfront_proto.qmtp.client.MAX_RESPONSE", 10_000_000)
    with pytest.raises(AssertionError, match="bytes held after"):
        check(wire)


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


needs_atheris = pytest.mark.skipif(not run.has_atheris(), reason=run.NO_ATHERIS)


@needs_atheris
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_a_fault_that_is_planted_is_found_within_a_minute(fault: str) -> None:
    """And not by the seeds alone."""
    harness, said, _ = faults.FAULTS[fault]
    played = subprocess.run([sys.executable, "-c", PLAY_PLANTED, fault], capture_output=True, text=True)
    assert played.returncode == 0, played.stderr
    found = subprocess.run(
        [sys.executable, str(SCRIPT), "--fault", fault, "--seconds", "60"], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 1 and harness in found.stdout and "play it again with: " in found.stdout
    assert said in found.stdout, found.stdout


PLAY_PLANTED = f"""
import sys
sys.path.insert(0, {str(SCRIPT.parents[1])!r})
from fuzz import faults, run
harness, _, plant = faults.FAULTS[sys.argv[1]]
plant()
run.play_seeds(harness)
"""


def fuzz_all(seconds: int) -> str:
    command = [sys.executable, str(SCRIPT), "--total", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300 + 2 * seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_minute_for_all_harnesses_finds_nothing() -> None:
    output = fuzz_all(60)
    if run.has_atheris():
        assert output.count("nothing found") == len(run.HARNESSES)
    else:
        assert output.endswith(run.NO_ATHERIS + "\n")


@pytest.mark.long
@needs_atheris
def test_a_quarter_of_an_hour_for_all_harnesses_finds_nothing() -> None:
    assert fuzz_all(900).count("nothing found") == len(run.HARNESSES)


def test_an_unknown_harness_is_named() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"there is no harness nonsense: take of {', '.join(run.HARNESSES)}" in done.stderr
