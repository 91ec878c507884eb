"""What a QMTP or QMQP server machine tells its application, and what each event wants in return.

The message comes first, its envelope behind it. `MessageStart`, `Sender`, `Recipient` and `MessageEnd` **owe an
answer** (the machine returns `PAUSED` until it has it): ``machine.accept()``, or ``machine.reply(code, text)`` with an
SMTP reply code. So does `Package`, which stands for all of them if you ask for it. `MessageStart`, `Sender` and
`Recipient` owe none where their `refusal` is set: then they tell only, for the log. `Body`, `MessageRefused` and
`ConnectionClosed` always tell only.

All events are mutable records for speed; treat them as read-only.
"""

from mailfront_proto.pull import Event
from mailfront_proto.record import record
from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.replies import Reply


@record
class MessageStart(Event):
    """A message begins: `Body` events follow, then its `Sender`.

    `size`: its bytes, as they are sent (whatever ends its lines). `refusal`: the machine's own, if that is over
    ``machine.message_size``. With any answer but a positive one there is no body, and the answer is the response to
    the message.
    """

    size: int
    refusal: Reply | None = None


@record
class Body(Event):
    """A slice of the message: every line end CRLF, or LF where the machine was made with ``lf_bodies=True``.

    Slices are cut where the network cut them, but never inside a CRLF. A slice is never empty. Tells only.
    """

    data: bytes


@record
class Sender(Event):
    """The envelope sender; empty for the null path.

    `address`: as it came: QMTP and QMQP quote nothing, so that ``a b@example.org`` is an address. `refusal`: what
    refuses it (the machine, for a control byte or its length; or the message was refused before). A refused sender
    refuses the whole package.
    """

    address: Address
    refusal: Reply | None = None


@record
class Recipient(Event):
    """An envelope recipient. Fields as in `Sender`.

    In QMTP a refused recipient gets the refusal as its own response, and the others go on. In QMQP, and in the compat
    profile, there is one response to the package: the first refusal is that.
    """

    address: Address
    refusal: Reply | None = None


@record
class MessageEnd(Event):
    """All of the package was received. A positive answer takes responsibility for the message, for each of the
    `recipients` that were accepted (their number; it may be 0 in the compat profile alone).

    ``machine.reply_each()`` answers for each of them, in QMTP.
    """

    recipients: int


@record
class Package(Event):
    """All of a package at once, in place of the events from `MessageStart` to `MessageEnd`. Given only where
    ``machine.whole_packages`` is set, for a package that is here in one piece and of which the machine refuses nothing;
    all others come in parts.

    `size`: as in `MessageStart`. `data`: the message, as `Body` would have it; may be empty. `sender`, `recipients`:
    the bytes of the addresses; at least one recipient. Its answer is one to all of it: ``machine.reply(code, text)``
    for every recipient alike; or, in QMTP, ``machine.reply_each()`` with a reply for each, refused ones too.
    """

    size: int
    data: bytes
    sender: bytes
    recipients: list[bytes]


@record
class MessageRefused(Event):
    """All of the package was received, and nothing of it was accepted. Drop it. `reply`: the first refusal. Tells
    only."""

    reply: Reply


@record
class ConnectionClosed(Event):
    """The last event; ``next_event()`` returns it again ever after. Drain ``data_to_send()``, then close.

    `reason`: ``EOF`` between two packages; ``done`` behind a QMQP package; ``aborted`` by the application; or the text
    of `reply`, with which the machine gave up. `in_message`: this is in the middle of a package; nothing of it may be
    delivered.
    """

    reason: str
    in_message: bool = False
    reply: Reply | None = None
