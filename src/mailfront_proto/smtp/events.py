"""What an SMTP server machine tells its application, and what each event wants in return.

Events that **owe an answer** (the machine returns `PAUSED` until it has it) take
``machine.accept()``, which sends the usual reply, or ``machine.reply(code, text)``: `Connected`, `Helo`,
`Mail`, `Recipient`, `Data`, `MessageEnd`, `Reset`, `Verify`, `Help`, `Quit`, `StartTLS`,
`VendorCommand`, `Xclient`, and those of an AUTH exchange, which are the same in all protocols: `VerifyPassword` and
its like in `mailfront_proto.sasl.requests`.

Events that **tell only** need nothing: `Body`, `Refused`, `MessageRefused`, `ConnectionClosed`.

All events are mutable records for speed (frozen ones cost three times as much to make); treat them
as read-only: those that say nothing but their kind are the same object each time.
"""

from enum import Enum

from mailfront_proto.pull import Event as Event  # noqa: PLC0414 - all of it is to be had here
from mailfront_proto.record import record
from mailfront_proto.sasl.requests import VerifyPassword as VerifyPassword  # noqa: PLC0414
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.parameters import NO_MAIL_OPTIONS, NO_RECIPIENT_OPTIONS, MailOptions, RecipientOptions
from mailfront_proto.smtp.replies import Reply


@record
class Connected(Event):
    """The connection is there and the greeting (RFC 5321 section 3.1) is owed: the first event.

    ``accept()`` sends ``220 <greeting> ESMTP``; ``reply(554, …)`` or ``reply(421, …)`` turns the client
    away and closes.

    `early_talker`: bytes came before the greeting went out (RFC 5321 section 4.3.1 asks the client to
    wait; few but spam programs do not). A driver that wants to know reads once, briefly, first.
    """

    early_talker: bool


@record
class Helo(Event):
    """HELO, EHLO or LHLO (RFC 5321 section 4.1.1.1, RFC 2033). Any transaction was dropped.

    `host`: the argument as it came (may be empty in the compat profile). `verb`: ``HELO``, ``EHLO`` or
    ``LHLO``. ``accept(capabilities=…)`` sends the host name and, for EHLO and LHLO, the capability list:
    those given first, then the machine's own.
    """

    verb: str
    host: str


@record
class Mail(Event):
    """MAIL FROM (RFC 5321 section 4.1.1.2). Any earlier transaction was dropped.

    `address`: the reverse-path; `parameters`: the ESMTP parameters, each as it came (``KEY`` or
    ``KEY=VALUE``); `argument`: the argument as it came, for the log; `options`: what the parameters say, read
    and checked against what was advertised (in the compat profile they are not read: nothing is set).
    ``options.auth`` of a client that has not authenticated is `NULL_SUBMITTER` (RFC 4954 section 5). A 2yz answer
    starts the transaction.
    """

    address: Address
    parameters: list[str]
    argument: str
    options: MailOptions = NO_MAIL_OPTIONS


@record
class Recipient(Event):
    """RCPT TO (RFC 5321 section 4.1.1.3). Fields as in `Mail`. A 2yz answer adds the recipient."""

    address: Address
    parameters: list[str]
    argument: str
    options: RecipientOptions = NO_RECIPIENT_OPTIONS


@record
class Data(Event):
    """DATA (RFC 5321 section 4.1.1.4), or the first BDAT of a message (RFC 3030 section 2, `chunked`). ``accept()``
    sends the 354 (with BDAT nothing, but each chunk that is not the last is answered with 250 once it is here), and
    `Body` events follow; with any other answer there is no body, and the transaction is dropped (not in the compat
    profile)."""

    chunked: bool = False


@record
class Body(Event):
    """A slice of the message: dots unstuffed, every line end CRLF (RFC 5321 section 4.5.2), or LF where the
    machine was made with ``lf_bodies=True``. A BINARYMIME message (RFC 3030 section 3) comes as it is in any case.

    Slices are cut where the network or the client's chunks cut them, but never inside a CRLF. Tells only.
    """

    data: bytes


@record
class MessageEnd(Event):
    """The end of the message was received. A 2yz answer takes responsibility for it (RFC 5321 section
    6.1); in LMTP, ``reply_each()`` answers for each recipient that was accepted (RFC 2033 section 4.2).
    """


@record
class MessageRefused(Event):
    """The message ended, or one of its chunks did, and the machine itself refused the message with `reply` (too big,
    or line ends that the policy refuses). Drop what was received of it. Tells only."""

    reply: Reply


@record
class Reset(Event):
    """RSET (RFC 5321 section 4.1.1.5): the transaction was dropped."""


@record
class Verify(Event):
    """VRFY (RFC 5321 section 4.1.1.6, `verb` ``VRFY``) or EXPN (section 4.1.1.7, ``EXPN``; only with
    ``Profile.knows_expn``). ``accept()`` answers 252 without telling anything. `smtputf8`: the client takes UTF-8 in
    the reply, and may have sent it in `argument` (RFC 6531 section 3.7.4)."""

    verb: str
    argument: str
    smtputf8: bool = False


@record
class Help(Event):
    """HELP (RFC 5321 section 4.1.1.8)."""

    argument: str


@record
class Quit(Event):
    """QUIT (RFC 5321 section 4.1.1.10). Any answer closes; then comes `ConnectionClosed`."""


@record
class StartTLS(Event):
    """STARTTLS (RFC 3207), only while ``machine.offers_starttls``.

    After ``accept()``: drain ``data_to_send()``, do the handshake, then call ``tls_established()``. All
    that was known of the client is forgotten then. If the handshake fails call ``receive_eof()``.
    """


class Unavailable(Enum):
    """What a proxy says of an attribute instead of a value."""

    UNAVAILABLE = "[UNAVAILABLE]"
    """There is none, for good."""
    TEMPUNAVAIL = "[TEMPUNAVAIL]"
    """It could not be found out now, a host name in DNS for instance."""


@record
class Xclient(Event):
    """XCLIENT: a proxy says for which client it speaks, only while ``machine.offers_xclient``.

    Each attribute is None when it was not given (what was known stays), `Unavailable`, or its value, decoded and
    checked: `name`, the client's host name; `addr` and `port`; `proto`, ``SMTP`` or ``ESMTP``; `helo`, its HELO name;
    `login`, as whom it has authenticated; `destaddr` and `destport`, where it has connected to.

    ``accept()`` puts the session back before its greeting (TLS stays): HELO, AUTH and transaction are forgotten,
    the client counts as authenticated if there is a `login`, and `Connected` comes again, whose 220 answers the
    proxy. ``reply(550, …)`` changes nothing.
    """

    name: str | Unavailable | None = None
    addr: str | Unavailable | None = None
    port: int | Unavailable | None = None
    proto: str | Unavailable | None = None
    helo: str | Unavailable | None = None
    login: str | Unavailable | None = None
    destaddr: str | Unavailable | None = None
    destport: int | Unavailable | None = None


@record
class VendorCommand(Event):
    """A command that the application has registered with ``machine.register_command()``.

    ``reply()`` is the only answer.
    """

    verb: str
    argument: str


@record
class Refused(Event):
    """The machine itself refused a command with `reply`, already queued. Tells only, for logs and counts.

    `verb` is in upper case for a command that the machine knows, else as it came; `argument` as it came,
    but with the secret part of an AUTH masked. `unknown`: no such command. `transaction_dropped`: it was
    a MAIL, so that an earlier transaction has ended all the same. `mechanism`, `cause`: for AUTH, the
    mechanism as sent, and one of ``aborted``, ``bad initial response`` (no base64), ``bad response``,
    ``no such mechanism``, ``failed``.
    """

    verb: str
    argument: str
    reply: Reply
    unknown: bool = False
    transaction_dropped: bool = False
    mechanism: str = ""
    cause: str = ""


@record
class ConnectionClosed(Event):
    """The last event; ``next_event()`` returns it again ever after. Drain ``data_to_send()``, then close.

    `in_message`: this is in the middle of DATA, AUTH or a TLS handshake; nothing of the message may be
    delivered. `reason`: ``QUIT``, ``EOF``, ``aborted`` (by the application), or the reply with which the
    machine gave up, which is then in `reply` too.
    """

    reason: str
    in_message: bool = False
    reply: Reply | None = None
