"""The TLS handshake of a server session, as every front end does it: the operation, the facts, the log lines."""

from mailfront_io.ops import ConnectionLost, DeadlineExceeded, Recv, StartTLS, TLSFacts, TLSFailed
from mailfront_io.session import Session

HANDSHAKE_SECONDS = 30.0
LOOK_SECONDS = 0.001
"""How long `read_ahead` looks: what a client has sent behind its command is there already."""


async def handshake(session: Session, deadline: float, alpn: tuple[str, ...] = ()) -> bool:
    """Do the handshake by `deadline`, the end of the session, and within `HANDSHAKE_SECONDS`; whether it went well.

    `alpn`: see `mailfront_io.ops.StartTLS`. What was agreed is in the session then, and its bytes are counted anew.
    """
    from mailfront_io.tls import certificate_user, gnutls_names, has_expired

    assert session.tls_context is not None
    session.log("Starting TLS handshake")
    deadline = min(session.clock.monotonic() + HANDSHAKE_SECONDS, deadline)
    received, session.received = session.received, b""
    try:
        facts = await StartTLS(
            session.tls_context, server_side=True, deadline=deadline, alpn=alpn, received=received
        )
    except (TLSFailed, ConnectionLost, DeadlineExceeded) as error:
        why = "timed out" if isinstance(error, DeadlineExceeded) else str(error) or "connection lost"
        session.log(f"TLS handshake failed: {why}")
        session.ended = "tls"
        if session.meter is not None:
            session.meter.handshake("failed")
        return False
    session.tls = facts
    session.numbers["tls_state"] = 1
    session.strings["tls_protocol"] = facts.protocol
    session.strings["tls_cipher"] = facts.cipher
    if session.meter is not None:
        session.meter.handshake("ok")
        session.meter.moved(session)
    session.bytes_in = session.bytes_out = 0
    session.log(f"TLS handshake: {gnutls_names(facts, session.tls_key_type)}")
    if facts.verified_client is not None and session.certificate_counts:
        if has_expired(facts.verified_client, session.clock.time()):
            session.log("TLS client certificate: it has expired since it was shown")
        else:
            session.certificate_user = certificate_user(facts.verified_client)
            session.log(f"TLS client certificate: {session.certificate_user or 'it names no user'}")
    return True


async def parent_handshake(session: Session) -> bool:
    """Leave TLS to the program that started this one; whether it could be asked. What it agrees on is not known."""
    assert session.parent_tls is not None
    try:
        await session.parent_tls
    except TLSFailed as error:
        session.log(f"TLS handshake failed: {error}")
        return False
    session.tls = TLSFacts("", "", 0)
    session.numbers["tls_state"] = 1
    session.bytes_in = 0  # but bytes_out go on, as in the original
    return True


async def read_ahead(session: Session) -> bytes:
    """What the client has sent behind its STARTTLS or STLS, where lines are received one by one (`RecvLine`): the
    machine must refuse it. Without that it would be taken for the client's part of the handshake."""
    try:
        data = await Recv(session.clock.monotonic() + LOOK_SECONDS)
    except (DeadlineExceeded, ConnectionLost):
        return b""
    session.bytes_in += len(data)
    return data
