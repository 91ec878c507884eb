"""What an IMAP server machine tells its application, and what each event wants in return.

Events that **owe an answer** (the machine returns `PAUSED` until it has it): `Connected`, `StartTLS`, and the requests
of a login, which are those of `mailfront_proto.sasl`: `VerifyPassword` for LOGIN (its `sent_mechanism` is empty then),
PLAIN and SASL's LOGIN, and others for other mechanisms. ``machine.accept()`` says yes, ``machine.reply("NO")`` says no
in the usual words, ``machine.reply("NO", text, code)`` in yours.

Events that **tell only** need nothing: `Identified`, `Answered`, `HandOver`, `ConnectionClosed`.

All events are mutable records for speed; treat them as read-only.
"""

from collections.abc import Mapping

from mailfront_proto.imap.replies import Reply
from mailfront_proto.pull import Event
from mailfront_proto.record import record


@record
class Connected(Event):
    """The connection is there and the greeting (RFC 9051 section 7.1) is owed: the first event.

    ``accept()`` sends ``* OK`` and the greeting; ``reply("BYE", text)`` turns the client away and closes, and so does
    ``reply("NO", text)``, as the original has it.

    `early_talker`: bytes came before the greeting went out.
    """

    early_talker: bool


@record
class Identified(Event):
    """ID (RFC 2971): the client has said what it is, and was told ``machine.server_id``. Tells only, for logs.

    `fields`: what it said, such as ``name`` and ``version``, in lower case; None for NIL. Empty for ``ID NIL``. Never
    trust it.
    """

    fields: Mapping[str, str | None]


@record
class StartTLS(Event):
    """STARTTLS (RFC 9051 section 6.2.1), only while ``machine.offers_starttls``.

    After ``accept()``: drain ``data_to_send()``, do the handshake, then call ``tls_established()``. If the handshake
    fails call ``receive_eof()``.
    """


@record
class Answered(Event):
    """The machine has sent a line, already queued. Tells only, for logs and counts; one comes for every line but the
    challenges of an exchange.

    `said`: the line, fit for a log: where its tag may be a password in the wrong place it is masked. `reply`: the
    status response that it is; None for others. `command`: the name of the command that it answers, in upper case;
    empty where that is not known. `mechanism`, `cause`: for an AUTHENTICATE that the machine itself has refused, the
    mechanism as sent, and one of ``aborted``, ``bad initial response`` (no base64), ``bad response``, ``no such
    mechanism``, ``failed``.
    """

    said: str
    reply: Reply | None = None
    command: str = ""
    mechanism: str = ""
    cause: str = ""


@record
class HandOver(Event):
    """The login is done, and nothing was sent. The last event; ``next_event()`` returns it again ever after.

    Drain ``data_to_send()``, then hand the connection to its next owner, along with ``machine.trailing_data``: what the
    client has sent behind the login. The next owner sends the tagged ``OK`` (RFC 9051 sections 6.2.2 and 6.2.3).

    `tag`: that of the command, as it came; the next owner must know it. `username`: who has logged in (the
    authorization identity, if one was accepted that differs from the user name). `command`: ``LOGIN`` or
    ``AUTHENTICATE``.
    """

    tag: bytes
    username: str
    command: str


@record
class ConnectionClosed(Event):
    """The last event; ``next_event()`` returns it again ever after. Drain ``data_to_send()``, then close.

    `reason`: ``LOGOUT``, ``EOF``, ``aborted`` or ``refused`` (by the application), or the text of `reply`, with which
    the machine gave up. `unfinished`: this is in the middle of a login or a TLS handshake.
    """

    reason: str
    unfinished: bool = False
    reply: Reply | None = None
