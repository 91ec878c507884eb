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
def stranger() -> trustme.CA:
    """Another authority, whom nobody trusts."""
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


@cache
def user_certificate(*names: str, trusted: bool = True) -> trustme.LeafCert:
    """A certificate for a user: for e-mail addresses, or, where its only name is none, with a common name."""
    issuer = authority() if trusted else stranger()
    return issuer.issue_cert(*names) if "@" in names[0] else issuer.issue_cert(common_name=names[0])


def write_authority(directory: Path) -> Path:
    """A file with the authority's certificate, as ``$TLS_CLIENT_CA`` takes it."""
    path = directory / "authority.pem"
    authority().cert_pem.write_to_path(str(path))
    return path


def write_user_pem(directory: Path, *names: str) -> Path:
    """A file with key and chain of a user, as clients take it."""
    path = directory / "user.pem"
    user_certificate(*names).private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


def write_pem(directory: Path, name: str = "mx.example.org") -> Path:
    """A file with key and chain, as ``$TLS_CERTFILE`` takes it."""
    path = directory / "server.pem"
    certificate(name).private_key_and_cert_chain_pem.write_to_path(str(path))
    return path
