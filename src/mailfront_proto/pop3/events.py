"""What a POP3 server machine tells its application, and what each event wants in return.

Events that **owe an answer** (the machine returns `PAUSED` until it has it): `Connected`, `OpenMailbox`, `Retrieve`,
`Update`, `StartTLS`, and the requests of a login, which are those of `mailfront_proto.sasl`: `VerifyPassword` for
USER and PASS, PLAIN and LOGIN, and others for other mechanisms. ``machine.accept()`` says yes,
``machine.reply("-ERR")`` says no in the usual words, ``machine.reply("-ERR", text, code)`` in yours. `OpenMailbox` is
accepted with ``machine.open_mailbox(…)``.

Events that **tell only** need nothing: `Answered`, `Refused`, `HandOver`, `ConnectionClosed`.

All events are mutable records for speed; treat them as read-only.
"""

from mailfront_proto.pop3.replies import Reply
from mailfront_proto.pull import Event
from mailfront_proto.record import record


@record
class Connected(Event):
    """The connection is there: the first event.

    ``accept()`` sends the greeting (RFC 1939 section 4); in `Mode.MAILBOX` it sends nothing yet, and `OpenMailbox`
    follows. ``reply("-ERR", text)`` turns the client away and closes.

    `early_talker`: bytes came before the greeting went out.
    """

    early_talker: bool


@record
class OpenMailbox(Event):
    """The mailbox of `username` is to be opened, and locked against other sessions (RFC 1939 section 4).

    ``machine.open_mailbox(sizes, uids, …)`` tells what is in it, and sends the ``+OK`` that the client waits for: that
    of PASS or AUTH, or the greeting in `Mode.MAILBOX`. ``reply("-ERR", text, code)`` says that it cannot be opened:
    code ``IN-USE`` when it is locked (RFC 2449 section 8.1.2), ``LOGIN-DELAY`` when it is too soon (8.1.1),
    ``SYS/TEMP`` or ``SYS/PERM`` else (RFC 3206 section 4). The client may log in again then; in `Mode.MAILBOX` that
    closes.

    `username`: who has logged in (the authorization identity, if one was accepted that differs from the user name);
    empty in `Mode.MAILBOX`, and where the login names nobody (ANONYMOUS, a token alone). `again`: this is RSET, in a
    profile with ``rescans_on_reset``; the marks are gone, and after a refusal the messages are what they were.
    """

    username: str
    again: bool = False


@record
class Retrieve(Event):
    """RETR or TOP (RFC 1939 sections 5 and 7) of a message that is there.

    ``accept()`` sends ``+OK``; then call ``machine.send_message_data(data)`` for each piece of the message, until it is
    complete or that returns False, draining ``data_to_send()`` in between, and ``machine.end_of_message()``. To give up
    half-way is only possible by ``abort()``. ``reply("-ERR")`` says that the message cannot be opened;
    ``machine.reply_utf8_only()`` that it cannot be sent to this client.

    `number`: the message, from 1. `lines`: how many lines of its body are wanted, besides the header; None: the whole
    message, which is then marked read. `utf8`: the client has said UTF8 (RFC 6856 section 2). Where it has not, a
    message with UTF-8 in its header must be downgraded or refused with ``reply_utf8_only()``.
    """

    number: int
    lines: int | None
    utf8: bool


@record
class Update(Event):
    """QUIT behind a login: the one moment in which messages may be deleted (RFC 1939 section 6).

    Remove the messages in `deleted`, mark those in `read` (read in this session, and not deleted) as seen, unlock the
    mailbox; then ``accept()``, or ``reply("-ERR")`` if some could not be removed. Either closes. A session that ends
    in any other way has no `Update`, and must delete nothing.
    """

    deleted: list[int]
    read: list[int]


@record
class StartTLS(Event):
    """STLS (RFC 2595 section 4), only while ``machine.offers_stls``.

    After ``accept()``: drain ``data_to_send()``, do the handshake, then call ``tls_established()``. What was known of
    the client is forgotten then. If the handshake fails call ``receive_eof()``.
    """


@record
class Answered(Event):
    """The machine itself has answered a command with `reply`, already queued. Tells only, for logs and counts.

    `line`: the command as it came, fit for a log: what may be secret in it is masked. Of an answer of many lines
    `reply` is the first (those of LIST and UIDL are still being written).
    """

    line: str
    reply: Reply


@record
class Refused(Event):
    """The machine itself has refused a command with `reply`, already queued. Tells only, for logs and counts.

    `line` as in `Answered`; empty for one that was too long. `mechanism`, `cause`: for AUTH, the mechanism as sent, and
    one of ``aborted``, ``bad initial response`` (no base64), ``bad response``, ``no such mechanism``, ``failed``.
    """

    line: str
    reply: Reply
    mechanism: str = ""
    cause: str = ""


@record
class HandOver(Event):
    """`Mode.LOGIN`: the login is done, and nothing was sent. The last event; ``next_event()`` returns it ever after.

    Drain ``data_to_send()``, then hand the connection to its next owner, along with ``machine.trailing_data``: what the
    client has sent behind the login.

    `username` as in `OpenMailbox`.
    """

    username: str


@record
class ConnectionClosed(Event):
    """The last event; ``next_event()`` returns it again ever after. Drain ``data_to_send()``, then close.

    `reason`: ``QUIT``, ``EOF``, ``aborted`` (by the application), ``refused`` (the connection or the mailbox, by the
    application), or the text of the answer with which the machine gave up, which is in `reply` then. `unfinished`: this
    is in the middle of a message, a login or a TLS handshake.
    """

    reason: str
    unfinished: bool = False
    reply: Reply | None = None
