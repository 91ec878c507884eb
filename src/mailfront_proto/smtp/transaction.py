"""One message on its way out: which command comes next, and what became of each recipient.

Strategy: this is the bookkeeping of ``SMTPClient.send_message()`` and nothing else. It knows no connection:
the client asks `next_command` whenever it may send, reports every answer with `replied`, and takes
`results` when `is_over`. A recipient's fate is written once, by the first answer that decides it.

What a message needs and the server lacks decides before anything is sent: content is never converted, and an
address never mangled. What only asks for a service (a size, a report, a submitter) is left out where the server
does not offer it.
"""

from collections.abc import Sequence

from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.capabilities import Capabilities
from mailfront_proto.smtp.client_events import RecipientResult, Stage
from mailfront_proto.smtp.client_lines import envelope_line
from mailfront_proto.smtp.parameters import BodyType, MailOptions, Notify, RecipientOptions
from mailfront_proto.smtp.replies import Reply

NO_EIGHT_BIT = Reply(554, "5.6.3 The server does not take 8-bit messages")  # RFC 6152 section 3
NO_BINARY = Reply(554, "5.6.3 The server does not take binary messages")  # RFC 3030 section 3
NO_UTF8 = Reply(553, "5.6.7 The server does not take non-ASCII addresses")  # RFC 6531 section 3.5
NO_UTF8_HEADER = Reply(554, "5.6.7 The server does not take headers that are not ASCII")  # the same
NO_REQUIRETLS = Reply(550, "5.7.30 The server does not offer REQUIRETLS")  # RFC 8689 sections 4.2.1 and 5
NO_TLS = Reply(550, "5.7.10 The message must travel over TLS, and there is none")  # the same
TOO_BIG = Reply(552, "5.3.4 The message is larger than the server takes")  # RFC 1870 section 6.1

_STAGES = {
    **{"RSET": Stage.MAIL, "MAIL": Stage.MAIL, "RCPT": Stage.RCPT, "DATA": Stage.DATA},
    **{"BDAT": Stage.MESSAGE, ".": Stage.MESSAGE},
}

Recipient = tuple[Address, RecipientOptions]
Command = tuple[str, bytes]
"""A verb and its line. ``BDAT`` has none: it says that the message may begin."""


class Transaction:
    """One message, planned for a server that offers `capabilities`. Arguments as in ``send_message()``.

    `in_tls`: the connection is protected. `reset_first`: an open transaction must be dropped. `lmtp`: the message is
    answered for each accepted recipient. Raises `LocalProtocolError` for an address or an option that cannot be sent.
    """

    def __init__(
        self,
        sender: Address,
        recipients: Sequence[Recipient],
        options: MailOptions,
        capabilities: Capabilities,
        *,
        in_tls: bool,
        chunking: bool,
        reset_first: bool,
        lmtp: bool,
    ) -> None:
        self._recipients = recipients
        self._fates: list[tuple[Reply, Stage] | None] = [None] * len(recipients)
        self._lmtp = lmtp
        self._reports = "DSN" in capabilities
        self.is_binary = options.body is BodyType.BINARY_MIME
        """The message's bytes go out as they are."""

        utf8 = "SMTPUTF8" in capabilities
        needs_utf8 = options.smtputf8 or not all(a.is_ascii for a in (sender, *[a for a, _ in recipients]))
        self._refuse(sender, options, capabilities, in_tls)
        self._asked = [index for index, fate in enumerate(self._fates) if fate is None]
        self.is_over = not self._asked
        """Every recipient's fate is known, and no answer to this message can change it."""
        self._accepted: list[int] = []
        self._answered = 0
        self._refused = False  # no RCPT, no message makes sense any more
        self._sent = 0
        self._commands: list[Command] = [("RSET", b"RSET\r\n")] if reset_first else []
        if self._asked:
            offered = _offered(options, capabilities, smtputf8=needs_utf8 and utf8)
            self._commands.append(("MAIL", envelope_line("MAIL", sender, offered, utf8)))
        for index in self._asked:
            address, wishes = recipients[index]
            if not self._reports:  # RFC 3461 section 5.2.2
                wishes = RecipientOptions(others=wishes.others)
            self._commands.append(("RCPT", envelope_line("RCPT", address, wishes, utf8)))
        in_chunks = self.is_binary or (chunking and "CHUNKING" in capabilities)
        self._commands.append(("BDAT", b"") if in_chunks else ("DATA", b"DATA\r\n"))

    def _refuse(self, sender: Address, options: MailOptions, capabilities: Capabilities, in_tls: bool) -> None:
        """Decide what the server's capabilities decide."""
        limit = capabilities.size
        why: Reply | None = None
        if options.require_tls and not in_tls:
            why = NO_TLS
        elif options.require_tls and "REQUIRETLS" not in capabilities:
            why = NO_REQUIRETLS
        elif self.is_binary and not ("BINARYMIME" in capabilities and "CHUNKING" in capabilities):
            why = NO_BINARY
        elif options.body is BodyType.EIGHT_BIT_MIME and "8BITMIME" not in capabilities:
            why = NO_EIGHT_BIT
        elif options.size is not None and limit is not None and options.size > limit:
            why = TOO_BIG
        elif "SMTPUTF8" not in capabilities:
            if options.smtputf8:
                why = NO_UTF8_HEADER
            elif not sender.is_ascii:
                why = NO_UTF8
            else:
                unsendable = [i for i, (address, _) in enumerate(self._recipients) if not address.is_ascii]
                self._decide(unsendable, NO_UTF8, Stage.LOCAL)
        if why is not None:
            self.lost(why, Stage.LOCAL)

    @property
    def has_recipients(self) -> bool:
        """Whether a message sent now would have a recipient."""
        return bool(self._accepted)

    @property
    def results(self) -> list[RecipientResult]:
        """One for each recipient, in order; when `is_over`."""
        results = []
        for (address, options), fate in zip(self._recipients, self._fates, strict=True):
            assert fate is not None
            result = RecipientResult(address, *fate)
            wants_report = options.notify is not None and Notify.SUCCESS in options.notify
            result.owes_report = wants_report and not self._reports and result.delivered
            results.append(result)
        return results

    def next_command(self, all_answered: bool) -> Command | None:
        """The command to send next, or None to wait. `all_answered`: the server owes no answer now."""
        if self.is_over or self._sent == len(self._commands):
            return None
        command = self._commands[self._sent]
        # RFC 2920 section 3.1: DATA may go out before the answers to RCPT. Once they are in, it goes out
        # only if somebody is to get the message (RFC 5321 section 3.3).
        begins = command[0] in ("DATA", "BDAT")
        if self._refused or (begins and all_answered and not self._accepted):
            self.is_over = all_answered
            return None
        if command[0] == "BDAT" and not all_answered:
            return None
        self._sent += 1
        return command

    def replied(self, command: str, reply: Reply) -> None:
        """The server's answer to `command`; answers come in the order of the commands."""
        if command == "RCPT":
            index = self._asked[self._answered]
            self._answered += 1
            if not reply.is_positive:
                self._decide([index], reply, Stage.RCPT)
            elif not self._refused:
                self._accepted.append(index)
        elif command == ".":
            answered = self._accepted[:1] if self._lmtp else self._accepted  # RFC 2033 section 4.2
            self._decide(answered, reply, Stage.MESSAGE)
            self._accepted = self._accepted[len(answered) :]
            self.is_over = not self._accepted
        elif not reply.is_positive:
            self._refused = True
            self.lost(reply, _STAGES[command])
            self.is_over = command in ("DATA", "BDAT")

    def lost(self, reply: Reply, stage: Stage) -> None:
        """`reply` decides for everybody whose fate is still open."""
        self._decide(range(len(self._fates)), reply, stage)

    def lost_by(self, reply: Reply, command: str) -> None:
        """The server has answered `command` with `reply`, and will answer nothing more."""
        self.lost(reply, _STAGES.get(command, Stage.CONNECTION))

    def _decide(self, indices: Sequence[int], reply: Reply, stage: Stage) -> None:
        for index in indices:
            if self._fates[index] is None:
                self._fates[index] = (reply, stage)


def _offered(options: MailOptions, capabilities: Capabilities, smtputf8: bool) -> MailOptions:
    """What of `options` this server is to be told: nothing that it does not offer (RFC 5321 section 4.1.1.11), and
    of the body nothing that is so anyway."""
    reports = "DSN" in capabilities  # RFC 3461 section 5.2.2
    return MailOptions(
        size=options.size if "SIZE" in capabilities else None,
        body=options.body if options.body is not BodyType.SEVEN_BIT else None,
        smtputf8=smtputf8,
        auth=options.auth if "AUTH" in capabilities else None,
        ret=options.ret if reports else None,
        envid=options.envid if reports else None,
        require_tls=options.require_tls,
        others=options.others,
    )
