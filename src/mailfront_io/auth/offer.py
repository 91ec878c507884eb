"""Which SASL mechanisms a session offers: those that its store can serve, and that expose no password."""

import os
from collections.abc import Iterable

from mailfront_io.auth.store import CredentialStore
from mailfront_io.plugin import Kind, Setting
from mailfront_io.session import Session, parse_number
from mailfront_proto.sasl.options import NOTHING_OFFERED, ServerOptions

EXPOSE_NOTHING = frozenset(("SCRAM-SHA-1", "SCRAM-SHA-256", "ANONYMOUS"))
"""Mechanisms that may be used without TLS. (Who listens to CRAM-MD5 can try passwords fast.)"""

SETTINGS = (
    Setting("AUTH_REQUIRES_TLS", Kind.NUMBER, "0: take passwords without TLS, too", "1 (compat: 0)"),
    Setting(
        "AUTH_MECHANISMS",
        Kind.LIST,
        "the SASL mechanisms to offer, of those that the store can serve",
        "all but weak ones",
    ),
)

ANONYMOUS = Setting(
    "AUTH_ANONYMOUS",
    Kind.TEXT,
    "the user whose mail anybody may have who logs in by ANONYMOUS; in SMTP such a login permits nothing",
    "ANONYMOUS is not offered",
)
"""For stores that know who exists."""


def offer(session: Session) -> ServerOptions:
    """The mechanisms that the session's store can serve now, and what they need."""
    return server_options(session, offered_mechanisms(session))


def server_options(session: Session, names: Iterable[str]) -> ServerOptions:
    """The mechanisms `names`, with what those of them need that `session` and its store have."""
    names = tuple(names)
    if not names:
        return NOTHING_OFFERED
    if names == ("LOGIN", "PLAIN"):  # what most offer: a one-shot program has no time to lose
        return ServerOptions(names)
    store = session.login_store
    hostname = session.local_host or "unknown"
    return ServerOptions(
        names,
        nonce_source=os.urandom,
        salt_secret=store.salt_secret if store is not None else None,
        iterations=store.iterations if store is not None else CredentialStore.iterations,
        external_identity=session.certificate_user,
        channel_bindings=channel_bindings(session),
        # nothing in it is of the process or the clock
        challenge_source=lambda: b"<%s@%s>" % (os.urandom(16).hex().encode(), hostname.encode()),
    )


def may_expose_passwords(session: Session) -> bool:
    """Whether passwords may travel as they are: inside TLS, or where ``$AUTH_REQUIRES_TLS`` allows it. There must be a
    store that verifies passwords. This decides on POP3's USER and IMAP's LOGIN, too."""
    store = session.login_store
    return store is not None and store.takes_passwords and _is_private(session)


def offered_mechanisms(session: Session) -> list[str]:
    """The names, in the store's order; a ``-PLUS`` in front of its mechanism where the channel can be bound. EXTERNAL
    is among them only where the client has shown a certificate, ANONYMOUS only where a user is named for it."""
    store = session.login_store
    if store is None:
        return []
    private = _is_private(session)
    listed = session.getenv("AUTH_MECHANISMS")
    wanted = None if not listed else {name for name in listed.upper().split(":") if name}
    names: list[str] = []
    for name in (*store.mechanisms, *(store.weak_mechanisms if wanted is not None else ())):
        if not private and name not in EXPOSE_NOTHING:
            continue
        if (name == "EXTERNAL" and not session.certificate_user) or (
            name == "ANONYMOUS" and not session.getenv("AUTH_ANONYMOUS")
        ):
            continue
        for offered in (f"{name}-PLUS", name) if name.startswith("SCRAM-") and channel_bindings(session) else (name,):
            if wanted is None or offered in wanted:
                names.append(offered)
    return names


def channel_bindings(session: Session) -> dict[str, bytes]:
    """What SCRAM can bind to, inside TLS that is ours."""
    if session.tls is None:
        return {}
    from mailfront_io.tls import server_end_point

    binding = server_end_point(session.tls_context, session.tls.sni)
    return {"tls-server-end-point": binding} if binding else {}


def _is_private(session: Session) -> bool:
    if session.tls is not None:
        return True
    wanted = session.getenv("AUTH_REQUIRES_TLS")
    # In the original it is enough that the variable is set.
    return wanted is None if session.profile.name == "compat" and wanted != "0" else parse_number(wanted) == 0
