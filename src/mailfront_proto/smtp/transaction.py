"""One message on its way out: which command comes next, and what became of each recipient.

Strategy: this is the bookkeeping of ``SMTPClient.send_message()`` and nothing else. It knows no connection:
the client asks `next_command` whenever it may send, reports every answer with `replied`, and takes
`results` when `is_over`. A recipient's fate is written once, by the first answer that decides it.
"""

from collections.abc import Sequence

from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.capabilities import Capabilities
from mailfront_proto.smtp.client_events import RecipientResult, Stage
from mailfront_proto.smtp.client_lines import envelope_line
from mailfront_proto.smtp.replies import Reply

NO_EIGHT_BIT = Reply(554, "5.6.3 The server does not take 8-bit messages")
NO_UTF8 = Reply(553, "5.6.7 The server does not take non-ASCII addresses")  # RFC 6531 section 3.5

_STAGES = {"RSET": Stage.MAIL, "MAIL": Stage.MAIL, "RCPT": Stage.RCPT, "DATA": Stage.DATA, ".": Stage.MESSAGE}

Command = tuple[str, bytes]
"""A verb and its line."""


class Transaction:
    """One message, planned for a server that offers `capabilities`. Arguments as in ``send_message()``.

    `reset_first`: an open transaction must be dropped. `lmtp`: the message is answered for each accepted
    recipient. Raises `LocalProtocolError` for an address or a parameter that cannot be sent.
    """

    def __init__(
        self,
        sender: Address,
        recipients: Sequence[Address],
        capabilities: Capabilities,
        *,
        size: int | None,
        eight_bit: bool,
        parameters: Sequence[str],
        reset_first: bool,
        lmtp: bool,
    ) -> None:
        self._recipients = recipients
        self._fates: list[tuple[Reply, Stage] | None] = [None] * len(recipients)
        self._lmtp = lmtp
        parameters = list(parameters)
        if size is not None and "SIZE" in capabilities:
            parameters.append(f"SIZE={size:d}")  # RFC 1870 section 5
        if eight_bit:  # RFC 6152 section 3: a server without the extension must not get 8-bit content
            if "8BITMIME" not in capabilities:
                self.lost(NO_EIGHT_BIT, Stage.LOCAL)
            parameters.append("BODY=8BITMIME")
        utf8 = "SMTPUTF8" in capabilities
        if not utf8:
            unsendable = [i for i, address in enumerate(recipients) if not address.is_ascii]
            self._decide(unsendable, NO_UTF8, Stage.LOCAL)
            if not sender.is_ascii:
                self.lost(NO_UTF8, Stage.LOCAL)
        elif not all(address.is_ascii for address in (sender, *recipients)):
            parameters.append("SMTPUTF8")  # RFC 6531 section 3.4

        self._asked = [index for index, fate in enumerate(self._fates) if fate is None]
        self.is_over = not self._asked
        """Every recipient's fate is known, and no answer to this message can change it."""
        self._accepted: list[int] = []
        self._answered = 0
        self._refused = False  # no RCPT or DATA makes sense any more
        self._sent = 0
        self._commands: list[Command] = [("RSET", b"RSET\r\n")] if reset_first else []
        if self._asked:
            self._commands.append(("MAIL", envelope_line("MAIL", sender, parameters, utf8)))
        for index in self._asked:
            self._commands.append(("RCPT", envelope_line("RCPT", recipients[index], (), utf8)))
        self._commands.append(("DATA", b"DATA\r\n"))

    @property
    def has_recipients(self) -> bool:
        """Whether a message sent now would have a recipient."""
        return bool(self._accepted)

    @property
    def results(self) -> list[RecipientResult]:
        """One for each recipient, in order; when `is_over`."""
        results = []
        for address, fate in zip(self._recipients, self._fates, strict=True):
            assert fate is not None
            results.append(RecipientResult(address, *fate))
        return results

    def next_command(self, all_answered: bool) -> Command | None:
        """The command to send next, or None to wait. `all_answered`: the server owes no answer now."""
        if self.is_over or self._sent == len(self._commands):
            return None
        command = self._commands[self._sent]
        # RFC 2920 section 3.1: DATA may go out before the answers to RCPT. Once they are in, it goes out
        # only if somebody is to get the message (RFC 5321 section 3.3).
        if self._refused or (command[0] == "DATA" and all_answered and not self._accepted):
            self.is_over = all_answered
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
            self.is_over = command == "DATA"

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
