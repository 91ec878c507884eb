"""A certificate authority for one run of the tests, and TLS contexts of both roles."""

import ssl
from functools import cache
from pathlib import Path

import trustme


@cache
def authority() -> trustme.CA:
    """The authority."""
    return trustme.CA()


@cache
def certificate(name: str = "mx.example.org") -> trustme.LeafCert:
    """Its certificate for `name`."""
    return authority().issue_cert(name)


def server_context(name: str = "mx.example.org") -> ssl.SSLContext:
    """A server's context, without mailfront's own settings."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(name).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    """A client's context that trusts the authority and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


def write_pem(directory: Path, name: str = "mx.example.org") -> Path:
    """A file with key and chain, as ``$TLS_CERTFILE`` takes it."""
    path = directory / "server.pem"
    certificate(name).private_key_and_cert_chain_pem.write_to_path(str(path))
    return path
