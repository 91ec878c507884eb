"""Where the relaying backends send mail to: the ``$UPSTREAM…`` settings, read and checked once for a service."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mailfront_io.frontends.client_settings import ClientDeadlines, ClientSettings, TLSPolicy
from mailfront_io.peers import Address
from mailfront_io.plugin import Kind, Setting
from mailfront_io.session import parse_number
from mailfront_io.tls import client_context
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.record import record
from mailfront_proto.smtp.addresses import is_ipv4, is_ipv6

if TYPE_CHECKING:
    import ssl

POOL_SIZE: Final = 20
"""Idle connections that are kept by default: as many clients at once as a busy small server has. Each holds a process
of most upstream servers."""

SETTINGS: Final = (
    Setting(
        "UPSTREAM",
        Kind.TEXT,
        "the next servers, tried in turn: HOST, HOST:PORT, [IPv6]:PORT or the path of a unix socket, with commas",
        required=True,
    ),
    Setting(
        "UPSTREAM_TLS",
        Kind.TEXT,
        "none; may: STARTTLS if offered; must: STARTTLS or no mail; verify: that, and its certificate is verified; "
        "implicit: TLS from the start, verified",
        "verify (on this machine: none)",
    ),
    Setting("UPSTREAM_TLS_CA", Kind.TEXT, "PEM file with the authorities to trust", "the system's"),
    Setting("UPSTREAM_TLS_NAME", Kind.TEXT, "the name that the certificate must have", "the HOST"),
    Setting("UPSTREAM_USER", Kind.TEXT, "who to authenticate as", "no AUTH"),
    Setting("UPSTREAM_PASSWORD_FILE", Kind.TEXT, "the file whose first line is the password, read for each connection"),
    Setting("UPSTREAM_AUTH_CLEAR", Kind.FLAG, "authenticate even where there is no TLS"),
    Setting("UPSTREAM_HELO", Kind.TEXT, "our name for EHLO", "this machine's"),
    Setting("UPSTREAM_TIMEOUT", Kind.NUMBER, "seconds that no step may take longer than", "RFC 5321's for each"),
    Setting("UPSTREAM_POOL", Kind.NUMBER, "idle connections kept open for later messages; 0: none", str(POOL_SIZE)),
)

PORTS: Final = {False: 25, True: 24}
SUBMISSIONS_PORT: Final = 465

_WORD: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?\Z")


@record(frozen=True)
class Server:
    """One of the next servers. `name`: for the log; `settings`: how sessions with it are to go, but for the
    credentials."""

    address: Address
    name: str
    settings: ClientSettings


@record(frozen=True)
class Upstream:
    """What the settings say. `servers`: tried in turn; `user`, `password_file`: for AUTH, empty: none; `verifies`:
    whether every server's certificate is verified, so that REQUIRETLS can be kept."""

    servers: tuple[Server, ...]
    user: str
    password_file: str
    auth_clear: bool
    pool_size: int
    verifies: bool


def upstream_from(environment: Mapping[str, str], lmtp: bool) -> Upstream | None:
    """The settings, read; None where ``$UPSTREAM`` is unset. Raises `ValueError`."""
    words = (environment.get("UPSTREAM") or "").replace(",", " ").split()
    if not words:
        return None
    user, password_file = environment.get("UPSTREAM_USER") or "", environment.get("UPSTREAM_PASSWORD_FILE") or ""
    if bool(user) != bool(password_file):
        raise ValueError("$UPSTREAM_USER and $UPSTREAM_PASSWORD_FILE go together: set both, or neither")
    if password_file and not os.access(password_file, os.R_OK):
        raise ValueError(f"$UPSTREAM_PASSWORD_FILE: {password_file} cannot be read: name a file with the password")
    servers = tuple(_server(word, environment, lmtp) for word in words)
    verifying = (TLSPolicy.MUST, TLSPolicy.IMPLICIT)
    return Upstream(
        servers,
        user,
        password_file,
        "UPSTREAM_AUTH_CLEAR" in environment,
        _number(environment, "UPSTREAM_POOL", POOL_SIZE),
        all(s.settings.tls in verifying and _verifies(s.settings.tls_context) for s in servers),
    )


def _server(word: str, environment: Mapping[str, str], lmtp: bool) -> Server:
    host, port, is_path = word, 0, word.startswith("/")
    if not is_path:
        match = _WORD.match(word)
        if match is None or (match[1] and not is_ipv6(match[1].encode())) or int(match[3] or 1) not in range(1, 65536):
            raise ValueError(
                f"$UPSTREAM: {word!r} is no server: write HOST, HOST:PORT, [IPv6]:PORT, or a path that begins with a /"
            )
        host, port = match[1] or match[2], int(match[3] or 0)
    here = is_path or host in ("localhost", "::1") or (host.startswith("127.") and is_ipv4(host.encode()))
    policy, context = _tls(environment, here)
    port = port or (SUBMISSIONS_PORT if policy is TLSPolicy.IMPLICIT else PORTS[lmtp])
    if lmtp and port == 25:  # RFC 2033 section 5
        raise ValueError(f"$UPSTREAM: {word}: LMTP is not spoken on port 25: give the server's port for LMTP")
    tls_name = environment.get("UPSTREAM_TLS_NAME") or ("localhost" if is_path else host.rstrip("."))
    seconds = _number(environment, "UPSTREAM_TIMEOUT", 0)
    try:
        settings = ClientSettings(
            tls=policy,
            tls_context=context,
            tls_name=tls_name,
            local_name=environment.get("UPSTREAM_HELO") or os.uname().nodename,
            lmtp=lmtp,
            relays=True,
            deadlines=ClientDeadlines().at_most(seconds) if seconds else ClientDeadlines(),
        )
    except LocalProtocolError as error:
        raise ValueError(f"$UPSTREAM_HELO: {error}") from None
    address: Address = word if is_path else (host, port)
    return Server(address, word if is_path else f"{host}:{port}", settings)


def _tls(environment: Mapping[str, str], here: bool) -> "tuple[TLSPolicy, ssl.SSLContext | None]":
    name = environment.get("UPSTREAM_TLS") or ("none" if here else "verify")
    policies = {
        "none": TLSPolicy.NONE,
        "may": TLSPolicy.MAY,
        "must": TLSPolicy.MUST,
        "verify": TLSPolicy.MUST,
        "implicit": TLSPolicy.IMPLICIT,
    }
    if name not in policies:
        raise ValueError(f"$UPSTREAM_TLS is {name!r}: set it to one of {', '.join(policies)}, or unset it")
    if name == "none":
        return TLSPolicy.NONE, None
    authorities = environment.get("UPSTREAM_TLS_CA")
    try:
        context = client_context(authorities, verify=name in ("verify", "implicit"))
    except OSError as error:
        raise ValueError(
            f"$UPSTREAM_TLS_CA: {authorities} holds no certificates that can be read ({error.strerror or error}): name "
            "a PEM file"
        ) from None
    return policies[name], context


def _verifies(context: "ssl.SSLContext | None") -> bool:
    return context is not None and context.check_hostname


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A number; what is none counts as unset (in the default profile that was refused before)."""
    number = parse_number(environment.get(name))
    return default if number is None else number
