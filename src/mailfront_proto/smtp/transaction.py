"""One message on its way out: which command comes next, and what became of each recipient.

Strategy: this is the bookkeeping of ``SMTPClient.send_message()`` and nothing else. It holds no bytes of the
connection: the client asks `next_command` whenever it may send, reports every answer with `replied`, and
takes `results` when `is_over`. A recipient's fate is written once, by the first answer that decides it.
"""

from collections.abc import Sequence

from mailfront_proto.smtp.addresses import Address
from mailfront_proto.smtp.client_events import RecipientResult, Stage
from mailfront_proto.smtp.replies import Reply

_STAGES = {"RSET": Stage.MAIL, "MAIL": Stage.MAIL, "RCPT": Stage.RCPT, "DATA": Stage.DATA, ".": Stage.MESSAGE}


class Transaction:
    """One message.

    `envelope`: the commands in front of DATA as (verb, line): RSET if the server must be told, MAIL, and a
    RCPT for each of `recipients`. `lmtp`: the message is answered for each accepted recipient.
    """

    def __init__(
        self, envelope: Sequence[tuple[str, bytes]], recipients: Sequence[Address], lmtp: bool
    ) -> None:
        self._commands = [*envelope, ("DATA", b"DATA")]
        self._sent = 0
        self._recipients = recipients
        self._fates: list[tuple[Reply, Stage] | None] = [None] * len(recipients)
        self._lmtp = lmtp
        self._refused = False  # no RCPT or DATA makes sense any more
        self._answered_recipients = 0
        self._accepted: list[int] = []
        self.is_over = False
        """Every recipient's fate is known and the server owes no answer to this message."""

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

    def next_command(self, all_answered: bool) -> tuple[str, bytes] | None:
        """The command to send next, or None to wait. `all_answered`: the server owes no answer now."""
        if self._sent == len(self._commands):
            return None
        command = self._commands[self._sent]
        # RFC 2920 section 3.1: DATA may go out before the answers to RCPT. Once they are in, it goes out
        # only if somebody is to get the message (RFC 5321 section 3.3).
        if self._refused or (command[0] == "DATA" and all_answered and not self._accepted):
            if all_answered:
                self.is_over = True
            return None
        self._sent += 1
        return command

    def replied(self, command: str, reply: Reply) -> None:
        """The server's answer to `command`; answers come in the order of the commands."""
        if command == "RCPT":
            index = self._answered_recipients
            self._answered_recipients += 1
            if not reply.is_positive:
                self._decide([index], reply, Stage.RCPT)
            elif not self._refused:
                self._accepted.append(index)
        elif command == ".":
            if self._lmtp and self._accepted:  # RFC 2033 section 4.2
                self._decide([self._accepted.pop(0)], reply, Stage.MESSAGE)
            else:
                self._decide(self._accepted, reply, Stage.MESSAGE)
                self._accepted = []
            self.is_over = not self._accepted
        elif not reply.is_positive:
            self._refused = True
            self._decide(range(len(self._fates)), reply, _STAGES[command])
            self.is_over = command == "DATA"

    def lost(self, reply: Reply, command: str | None = None) -> None:
        """Nothing more will be answered: `reply` decides for all who have no answer yet. `command`: the
        one that the server answered with it; None when the connection is gone."""
        self._decide(range(len(self._fates)), reply, Stage.CONNECTION if command is None else _STAGES[command])
        self.is_over = True

    def _decide(self, indices: Sequence[int], reply: Reply, stage: Stage) -> None:
        for index in indices:
            if self._fates[index] is None:
                self._fates[index] = (reply, stage)
