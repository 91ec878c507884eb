"""What holds a secret does not show it: no value of SASL or CVM in its ``repr``, whatever the secret is."""

import base64
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mailfront_proto.sasl
from mailfront_proto import cvm
from mailfront_proto.cvm import CVMRequest
from mailfront_proto.sasl import (
    Challenge,
    ScramKeys,
    ServerOptions,
    VerifyPassword,
    VerifyResponse,
    VerifyToken,
)
from mailfront_proto.sasl.scram_messages import ClientFinal, ServerFinal
from mailfront_proto.secret import Secret

HOLDERS: dict[str, Callable[[bytes], object]] = {
    "Secret": Secret,
    "VerifyPassword": lambda secret: VerifyPassword("PLAIN", "PLAIN", "joe", Secret(secret), ""),
    "VerifyResponse": lambda secret: VerifyResponse("CRAM-MD5", "CRAM-MD5", "joe", b"<1@x>", Secret(secret)),
    "VerifyToken": lambda secret: VerifyToken("XOAUTH2", "XOAUTH2", "joe", Secret(secret), {}),
    "Challenge": Challenge,
    "ScramKeys": lambda secret: ScramKeys("sha256", b"salt", 4096, Secret(secret), Secret(secret)),
    "ClientFinal": lambda secret: ClientFinal(b"c=biws,r=abc", b"n,,", b"abc", Secret(secret)),
    "ServerFinal": lambda secret: ServerFinal(Secret(secret), b""),
    "ServerOptions": lambda secret: ServerOptions(salt_secret=Secret(secret)),
    "CVMRequest": lambda secret: CVMRequest(
        b"joe", b"", Secret(secret), Secret(secret), b"<1@x>", Secret(secret), b"CRAM-MD5"
    ),
}
"""A value of each kind that can hold a secret, with it."""

PUBLIC = {
    "VerifyResponse": {"challenge"},  # it proves nothing without the digest
    "ScramKeys": {"salt"},  # every client that asks is told
    "GS2Header": {"raw", "authorization_identity"},
    "ClientFirst": {"raw", "username", "nonce"},
    "ServerFirst": {"raw", "nonce", "salt"},
    "ClientFinal": {"without_proof", "channel_binding", "nonce"},
    "ServerFinal": {"error"},
    "ServerOptions": {"channel_bindings"},
    "CVMRequest": {"account", "domain", "challenge", "response_type", "random_bytes"},
    "CVMResponse": {"facts"},
}
"""The fields of octets that may be shown."""


def records() -> Iterator[type[Any]]:
    """Every value class of SASL and CVM."""
    package = mailfront_proto.sasl
    names = [f"{package.__name__}.{each.name}" for each in pkgutil.iter_modules(package.__path__)]
    for module in (*map(importlib.import_module, names), cvm):
        for found in vars(module).values():
            if isinstance(found, type) and found.__module__ == module.__name__ and hasattr(found, "__match_args__"):
                yield found


def forms(secret: bytes) -> list[str]:
    """How a secret may stand in a text."""
    plain = [secret.decode("latin-1"), secret.decode("utf-8", "surrogateescape")]
    escaped = [repr(secret)[2:-1], *(repr(text)[1:-1] for text in plain)]
    return [*plain, *escaped, secret.hex(), base64.b64encode(secret).decode()]


@pytest.mark.parametrize("name", HOLDERS)
@given(st.binary(min_size=32, max_size=32))
def test_no_value_shows_a_secret(name: str, secret: bytes) -> None:
    value = HOLDERS[name](secret)
    for shown in (repr(value), str(value), f"{value}", repr([value])):
        assert not [form for form in forms(secret) if form in shown], shown


def test_a_field_of_octets_is_public_or_a_secret() -> None:
    """Who adds one decides."""
    unjudged = {
        f"{kind.__name__}.{name}"
        for kind in records()
        for name in kind.__match_args__
        if "bytes" in str(kind.__init__.__annotations__[name])
        and "Callable" not in str(kind.__init__.__annotations__[name])
        and name not in PUBLIC.get(kind.__name__, ())
    }
    assert unjudged == {"Challenge.data"}  # its repr is its own


def test_every_holder_of_a_secret_is_known() -> None:
    holders = {
        kind.__name__
        for kind in records()
        if any("Secret" in str(kind.__init__.__annotations__[name]) for name in kind.__match_args__)
    }
    assert holders == set(HOLDERS) - {"Secret", "Challenge"}
