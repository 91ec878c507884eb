"""The harnesses of SASL and CVM find faults that are there, with their seeds alone."""

import importlib

import pytest

from fuzz import run
from mailfront_proto import cvm
from mailfront_proto.sasl.scram import ScramServer


@pytest.mark.parametrize("name", ["sasl", "cvm"])
def test_seeds_pass(name: str) -> None:
    assert run.play_seeds(name) >= 10


def test_a_proof_that_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailfront_proto.sasl.scram.Secret.__eq__", lambda a, b: True)
    with pytest.raises(AssertionError):
        run.play_seeds("sasl")


def test_a_signature_that_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    client = importlib.import_module("mailfront_proto.sasl.scram").ScramClient

    def verify(self: object, challenge: bytes) -> bytes:
        self._verified = True  # type: ignore[attr-defined]
        return b""

    monkeypatch.setattr(client, "_verify", verify)
    with pytest.raises(AssertionError):
        run.play_seeds("sasl")


def test_a_name_that_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailfront_proto.sasl.anonymous.decode_identity", lambda data: data.decode("latin-1"))
    check = importlib.import_module("fuzz.sasl").check
    names = importlib.import_module("fuzz.sasl").NAMES
    with pytest.raises(AssertionError):
        check(bytes([names.index("ANONYMOUS"), 20]) + b"a\x1bb")


def test_keys_that_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = ScramServer._made_up_keys
    supply = ScramServer.supply_keys
    monkeypatch.setattr(ScramServer, "supply_keys", lambda self, keys: supply(self, made_up(self)))
    with pytest.raises(AssertionError):
        run.play_seeds("sasl")


def test_random_bytes_that_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailfront_proto.cvm.Secret.__eq__", lambda a, b: True)
    with pytest.raises(AssertionError):
        run.play_seeds("cvm")


def test_bytes_behind_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tagged = cvm._tagged
    monkeypatch.setattr(cvm, "_tagged", lambda packet: tagged(packet) or tagged(packet[:-1]))
    with pytest.raises(AssertionError):
        run.play_seeds("cvm")
