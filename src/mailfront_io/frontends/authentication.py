"""The login of a session, as every front end does it: what is offered, and the answers to what an exchange asks.

A front end does four things::

    machine.sasl = offer(session)                       # at the start, and again behind a TLS handshake
    verdict = await answer(machine, event, session)     # for each `Request` that the machine hands out
    await exchange_failed(session, mechanism, cause)    # for a `Refused` of an exchange that has failed by itself
    session.log_out()                                   # where all is forgotten: TLS begins, another client

and says the rest in the protocol's own words: ``machine.accept()`` for `Verdict.ACCEPTED`, a permanent error for
`Verdict.REFUSED`, a temporary one for `Verdict.UNAVAILABLE`, nothing at all for `Verdict.GOES_ON`. Attempts are counted
by the machines.
"""

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from mailfront_io.auth.asking import asker_for
from mailfront_io.auth.offer import may_expose_passwords, offer
from mailfront_io.auth.store import LARGEST_ID, Identity, StoreUnavailable
from mailfront_io.calling import Bounded
from mailfront_io.ops import DeadlineExceeded, Sleep
from mailfront_io.session import Session, parse_number
from mailfront_proto.sasl.requests import Authorize, FindKeys, Request, VerifyPassword, VerifyResponse, VerifyToken

if TYPE_CHECKING:
    from mailfront_proto.sasl.scram_keys import ScramKeys

STORE_SECONDS = 90.0
"""How long a store may take to answer. Modules that are asked by UDP may take 30 seconds each; clients wait longer."""

FAILURE_SECONDS = 1
"""How long a failed login waits for its answer in the default profile, unless ``$AUTH_FAILURE_DELAY`` says otherwise:
guessing by one connection is slow."""


class Verdict(Enum):
    """What came of a request."""

    ACCEPTED = "accepted"
    """It is the user: ``session.identity`` has the facts. Say so with ``machine.accept()``."""
    REFUSED = "refused"
    """Nobody has logged in, for good. It is logged, and the delay is over."""
    UNAVAILABLE = "unavailable"
    """The store cannot say now. It is logged."""
    GOES_ON = "goes on"
    """The exchange goes on; the machine has what it asked for."""


class TakesKeys(Protocol):
    """What `answer` needs of a machine."""

    def supply_keys(self, keys: "ScramKeys | None") -> None:
        """Answer `FindKeys`."""
        ...


async def answer(machine: TakesKeys, event: Request, session: Session) -> Verdict:
    """Ask the session's store what `event` asks, log what came of it, and let a failure wait.

    An unknown user, a wrong password and a user whose id is the superuser's get the same answer. A store that raises is
    one that cannot say now.
    """
    command = is_command(event)
    until = session.clock.monotonic() + STORE_SECONDS
    try:
        identity = await Bounded("the credential store", _ask(machine, event, session), until)
    except StoreUnavailable as error:
        return _unavailable(event, session, str(error))
    except DeadlineExceeded:
        return _unavailable(event, session, "it did not answer in time")
    except Exception as error:  # a store of somebody's own; its text may hold anything
        from traceback import extract_tb  # costs a one-shot program 10 ms that most need not spend

        at = extract_tb(error.__traceback__)[-1]
        return _unavailable(event, session, f"{type(error).__name__} in {at.filename}, line {at.lineno}")
    if not _can_be(identity):
        return _unavailable(event, session, f"its answer is no Identity of text and of ids from 0 to {LARGEST_ID}")
    if isinstance(event, FindKeys):
        return Verdict.GOES_ON
    if identity is None or not _may_in(event, identity):
        if not command:
            session.log(f"SASL AUTH {event.sent_mechanism} failed")
        count(session, event.mechanism, "failed")
        await failure_delay(session)
        return Verdict.REFUSED
    log_in(event, session, identity)
    return Verdict.ACCEPTED


def log_in(event: Request, session: Session, identity: Identity) -> None:
    """Note and log that the client is `identity`."""
    anonymous = event.mechanism == "ANONYMOUS"
    if anonymous:
        session.log_in_anonymously(identity)
    else:
        session.log_in(identity)
    count(session, event.mechanism, "ok")
    if not is_command(event):
        system = f" sys_username={identity.system_username}" if identity.system_username else ""
        domain = f" domain={identity.domain}" if identity.domain else ""
        # What a client says of itself is at the end, and in quotes: it looks like none of the facts.
        quoted = event.trace.replace('"', "'") if isinstance(event, Authorize) else ""
        trace = f' trace="{quoted}"' if anonymous else ""
        session.log(f"SASL AUTH {event.sent_mechanism} username={identity.username}{system}{domain}{trace}")


def is_command(event: Request) -> bool:
    """Whether a command beside SASL asks: POP3's PASS, IMAP's LOGIN."""
    return event.sent_mechanism in ("", "USER")


async def exchange_failed(session: Session, mechanism: str, cause: str) -> None:
    """An exchange has failed by itself: log it, and let a failed attempt wait, as one that the store refuses does.
    `mechanism`, `cause`: of the machine's event."""
    if cause in ("aborted", "bad response", "bad initial response"):
        session.log(f"SASL AUTH {mechanism} failed: {cause.replace('initial ', '')}")
    if cause != "bad initial response":
        session.log(f"SASL AUTH {mechanism} failed")
    count(session, mechanism, "failed")
    if cause not in ("aborted", "no such mechanism"):
        await failure_delay(session)


def count(session: Session, mechanism: str, result: str) -> None:
    """Tell who counts of a login: see `mailfront_io.metrics.Meter.authentication`."""
    if session.meter is not None:
        session.meter.authentication(mechanism, result)


async def failure_delay(session: Session) -> None:
    """Wait before a failed login is answered: ``$AUTH_FAILURE_DELAY`` seconds."""
    seconds = parse_number(session.getenv("AUTH_FAILURE_DELAY"))
    if seconds is None and session.profile.name != "compat":
        seconds = FAILURE_SECONDS
    if seconds:
        await Sleep(seconds)


async def _ask(machine: TakesKeys, event: Request, session: Session) -> Identity | None:
    store = session.login_store
    if store is None:
        raise StoreUnavailable("none is configured")
    command = is_command(event)
    default_domain = session.local_host or ("unknown" if command else "")
    asker = asker_for(session, session.clock.monotonic() + STORE_SECONDS, default_domain, command)
    match event:
        case FindKeys():
            machine.supply_keys(await store.find_keys(event.username, event.hash_name, asker))
            return None
        case VerifyPassword():
            return await store.verify_password(event.username, event.password, asker)
        case VerifyResponse():
            return await store.verify_response(event.username, event.challenge, event.digest.reveal(), asker)
        case VerifyToken():
            return await store.verify_token(event.username, event.token, event.properties, asker)
        case Authorize(mechanism="ANONYMOUS"):
            name = session.getenv("AUTH_ANONYMOUS")
            return await store.look_up(name, asker) if name else None
        case Authorize():
            return await store.look_up(event.username, asker)
    raise TypeError(f"{type(event).__name__} is no request that a store can answer")


def _can_be(identity: object) -> bool:
    """Whether a store may say so; one of somebody's own may say anything."""
    if identity is None:
        return True
    if not isinstance(identity, Identity):
        return False
    ids = [number for number in (identity.uid, identity.gid, *identity.groups) if number is not None]
    texts = (
        identity.username, identity.domain, identity.mailbox, identity.real_name, identity.directory, identity.shell,
        identity.group_name, identity.system_username,
    )  # fmt: skip
    return all(isinstance(text, str) for text in texts) and all(
        type(number) is int and 0 <= number <= LARGEST_ID for number in ids
    )


def _may_in(event: Request, identity: Identity) -> bool:
    if identity.uid == 0:  # the superuser logs in nowhere, in no profile
        return False
    if isinstance(event, VerifyToken):
        return event.username in ("", identity.username)
    # Who may act for whom no store says: a plugin's ``auth`` hook may.
    return getattr(event, "authorization_identity", "") in ("", event.username)


def _unavailable(event: Request, session: Session, why: str) -> Verdict:
    if not is_command(event):
        session.log(f"SASL AUTH {event.sent_mechanism} failed")
    if session.profile.name != "compat":
        session.log(f"credential store: {why}")
    count(session, event.mechanism, "unavailable")
    return Verdict.UNAVAILABLE


__all__ = [
    "Verdict",
    "answer",
    "count",
    "exchange_failed",
    "failure_delay",
    "is_command",
    "log_in",
    "may_expose_passwords",
    "offer",
]
