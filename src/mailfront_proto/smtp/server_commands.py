"""Commands: lines, what they say and in which order they may come, as far as the protocol alone decides.

Strategy: nearly every MAIL, RCPT and DATA is written in one way. In the states where one of them is next, a pattern for
the whole line is tried first, and what it finds is the event; every other line goes the general way, through the table
of `mailfront_proto.smtp.states`. The short way says nothing that the general way would not: it is open only while
nothing is left to do of the commands before (errors counted in a row, secrets that may follow), and no command of the
application stands in the place of a built-in one.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from mailfront_proto.buffer import OVERSIZED
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.pull import NEED_DATA, NeedData
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.addresses import COMMON_ADDRESS, MAX_COMMON_ADDRESS, NON_ASCII, Address
from mailfront_proto.smtp.answers import NOT_IMPLEMENTED
from mailfront_proto.smtp.events import (
    Data,
    Event,
    Helo,
    Help,
    Mail,
    Quit,
    Recipient,
    Reset,
    StartTLS,
    VendorCommand,
    Verify,
)
from mailfront_proto.smtp.profile import LineEnds, Profile
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server_envelope import CONTROL_BUT_TAB, ServerEnvelope
from mailfront_proto.smtp.server_session import as_text
from mailfront_proto.smtp.states import COMMAND_STATES, COMMANDS, Row, State, command_table

_CONTROL: Final = compile_later(r"[\x00-\x1f\x7f-\x9f]")
_HELO_NAME: Final = compile_later(r"[^\s\x00-\x1f\x7f-\x9f]+ *\Z")

# The lines that nearly every client sends. A parameter, whatever it is, is for the general way. (Case is ignored where
# it matters only: addresses would be gone through more slowly.)
_SENDER_LINE: Final = compile_later(b"(?i:MAIL) ((?i:FROM):<(" + COMMON_ADDRESS + b"|)>)\r\n")
_RECIPIENT_OR_DATA_LINE: Final = compile_later(b"(?:(?i:RCPT) ((?i:TO):<(" + COMMON_ADDRESS + b")>)|(?i:DATA))\r\n")
LONGEST_USUAL_LINE: Final = len("RCPT TO:<>\r\n") + MAX_COMMON_ADDRESS

# A command ends at the first space or tab, and its argument begins behind all of them.
_COMMAND: Final = compile_later(rb"([^ \t]*+)[ \t]*+(.*+)", re.DOTALL)
_COMMAND_LINE: Final = compile_later(rb"([^ \t\r\n\0]*+)[ \t]*+([^\r\n\0]*+)\r\n")
_DATA: Final = Data()
_QUIT: Final = Quit()

# Bound once: an attribute of an Enum costs a descriptor call each time.
_CONNECTED: Final = State.CONNECTED
_READY: Final = State.READY
_MAIL: Final = State.MAIL
_RECIPIENTS: Final = State.RECIPIENTS
_BODY: Final = State.BODY
_CLOSED: Final = State.CLOSED


class ServerCommands(ServerEnvelope):
    """A session that takes commands."""

    __slots__ = ()

    # -- the short way -----------------------------------------------------------------------------------

    def _next_sender(self) -> Event | NeedData | None:
        """Between transactions: MAIL, or any other command."""
        line = self._buffer.read_match(_SENDER_LINE.match, self._short_line)
        if line is None:
            return self._next_command()
        argument, raw = line.groups()
        self._next_state = _MAIL
        self._pending = event = Mail(Address(raw), [], argument.decode())
        return event

    def _next_recipient_or_data(self) -> Event | NeedData | None:
        """Inside a transaction: RCPT, DATA, or any other command."""
        line = self._buffer.read_match(_RECIPIENT_OR_DATA_LINE.match, self._short_line)
        if line is None:
            return self._next_command()
        argument, raw = line.groups()
        transaction = self._transaction
        event: Recipient | Data
        if raw is None:
            if transaction.binary or self._state is not _RECIPIENTS:
                return self._command(b"DATA", b"")
            self._next_state = _BODY
            event = _DATA
        else:
            if transaction.recipients >= self._rules.max_recipients:
                return self._command(b"RCPT", argument)
            self._next_state = _RECIPIENTS
            event = Recipient(Address(raw), [], argument.decode())
        self._pending = event
        return event

    # -- the general way ---------------------------------------------------------------------------------

    def _next_command(self) -> Event | NeedData | None:
        line = self._buffer.read_match(_COMMAND_LINE.match, self._rules.command_limit)
        if line is not None:
            verb, argument = line.groups()
            return self._command(verb, argument)
        odd = self._buffer.read_line(self._rules.frame_limit)
        if odd is None:
            return self._end_of_input() if self._eof else NEED_DATA
        if odd == OVERSIZED:
            return self._refuse("", "", answers.LINE_TOO_LONG)
        return self._odd_command(odd)

    def _odd_command(self, line: bytes) -> Event | None:
        """One that is longer than most may be, or in which a NUL, a CR or the LF has no place."""
        command = line[:-2] if line[-2:] == b"\r\n" else line[:-1]
        if self._rules.strict_lines and (b"\r" in command or b"\0" in command or line[-2:] != b"\r\n"):
            refusal = self._bare_line_end(line, command)
            if refusal is not None:
                return refusal
        parts = _COMMAND.match(command)
        assert parts is not None, "every part may be empty"
        verb, argument = parts.groups()
        upper = verb.upper()
        if len(line) > self._rules.command_limit and upper != b"AUTH" and upper not in self._additions.commands:
            return self._refuse("", "", answers.LINE_TOO_LONG)
        return self._command(verb, argument)

    def _command(self, raw_verb: bytes, argument: bytes) -> Event | None:
        upper = raw_verb.upper()
        if upper in self._additions.commands:
            return self._vendor_command(upper, argument)
        entry = self._rules.table[self._state].get(upper)
        if entry is None:
            return self._unknown(raw_verb, argument)
        verb, check, handler, row = entry
        if check is not None:
            refusal = check(self, verb, raw_verb, argument)
            if refusal is not None:
                return refusal
        if self._budgets.in_row:
            self._budgets.known()
        self._secrets_may_follow = False
        # Behind AUTH secrets may follow again, and a command that is refused says so by itself.
        self._short_line = 0 if self._additions.commands or verb == "AUTH" else self._rules.usual_line
        return handler(self, verb, argument, row)

    # What is asked of a command before it counts as one: the refusal, or None.

    def _check_idle(self, verb: str, raw_verb: bytes, argument: bytes) -> Event | None:
        spent = self._budgets.idle()
        return None if spent is None else self._refuse(verb, "", spent)

    def _check_auth(self, verb: str, raw_verb: bytes, argument: bytes) -> Event | None:
        return None if self.sasl.mechanisms else self._unknown(raw_verb, argument)

    def _check_bdat(self, verb: str, raw_verb: bytes, argument: bytes) -> Event | None:
        return None if "CHUNKING" in self.extensions else self._unknown(raw_verb, argument)

    def _check_xclient(self, verb: str, raw_verb: bytes, argument: bytes) -> Event | None:
        if not self.offers_xclient:
            return self._unknown(raw_verb, argument)
        return self._check_idle(verb, raw_verb, argument)

    def _check_starttls(self, verb: str, raw_verb: bytes, argument: bytes) -> Event | None:
        refusal = self._check_idle(verb, raw_verb, argument)
        if refusal is None and (self.in_tls or not self.offers_starttls):
            # Neither counted nor told as an unknown command (but it may not go on for ever).
            already = self.in_tls and self.profile.helo_required
            return self._refuse(verb, "", answers.TLS_ALREADY if already else NOT_IMPLEMENTED)
        return refusal

    def _out_of_order(self, verb: str, argument: bytes, refusal: Row) -> Event:
        assert isinstance(refusal, Reply)
        return self._refuse(verb, self._shown(verb, argument), refusal)

    def _bare_line_end(self, line: bytes, command: bytes) -> Event | None:
        """The refusal of a CR, LF or NUL that has no place in a command, or None."""
        bare = b"\r" in command or line[-2:] != b"\r\n"
        if self.profile.line_ends is LineEnds.NORMALIZE or not bare:
            if b"\r" in command or b"\0" in command:
                return self._refuse("", "", answers.BAD_COMMAND)
            return None
        event = self._refuse("", "", answers.BARE_LINE_END)
        if self._state is not _CLOSED:
            self._close_with(event.reply)
        return event

    def _helo(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        host = as_text(argument)
        if not self._is_helo_name(host):
            return self._refuse(verb, host, answers.BAD_HELO)
        if self._state is not _CONNECTED:
            self._state = _READY
            self._drop_transaction()
        return self._owe(Helo(verb, host), next_state)

    def _is_helo_name(self, host: str) -> bool:
        """Whether there is one word, of a length that a domain may have (RFC 5321 section 4.5.3.1.2): more would
        look like facts of ours in a trace line. What the word means is not judged. No profile takes control bytes."""
        if self.profile.helo_argument_required:
            return len(host) <= 255 and _HELO_NAME.match(host) is not None
        return _CONTROL.search(host) is None

    def _rset(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        self._drop_transaction()
        self._state = next_state
        return self._owe(Reset(), next_state)

    def _noop(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        self._budgets.errors_in_row = 0
        self._say(answers.NOOP_DONE)
        return None

    def _vrfy(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        smtputf8 = False
        if "SMTPUTF8" in self._advertised:  # RFC 6531 section 3.7.4.1
            name, blank, word = argument.rstrip(b" \t").rpartition(b" ")
            if blank and word.upper() == b"SMTPUTF8":
                smtputf8, argument = True, name.rstrip(b" \t")
        if not smtputf8 and not argument.isascii() and not self.profile.addresses.eight_bit:
            return self._refuse(verb, as_text(argument), NON_ASCII)
        return self._owe(Verify(verb, as_text(argument), smtputf8), next_state)

    def _help(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(Help(as_text(argument)), next_state)

    def _quit(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        return self._owe(_QUIT, next_state)

    def _starttls(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if argument and self.profile.parameters_checked:
            return self._refuse(verb, as_text(argument), answers.TLS_NO_PARAMETER)  # RFC 3207 section 4
        if argument and self.refuses_inside_tls:
            return self._refuse(verb, as_text(argument), self._wrong_parameter(needed=False))
        if len(self._buffer) and not self.refuses_inside_tls:
            # Plain text behind the command would be read as if it came inside TLS.
            event = self._refuse(verb, "", answers.TLS_PIPELINED)
            self._close_with(event.reply)
            return event
        return self._owe(StartTLS(), next_state)

    def _xclient(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        from mailfront_proto.smtp.xclient import XclientError, parse_xclient  # few servers need it

        try:
            return self._owe(parse_xclient(argument), self._state)
        except XclientError:
            return self._refuse(verb, as_text(argument), answers.BAD_XCLIENT)

    def _vendor_command(self, upper: bytes, argument: bytes) -> Event | None:
        wanted = self._additions.commands[upper]
        verb = upper.decode("ascii")
        text = as_text(argument)
        self._budgets.known()
        if len(upper) + len(argument) + 3 > self._rules.command_limit:
            return self._refuse(verb, "", answers.LINE_TOO_LONG)
        if (wanted == "required" and not argument) or (wanted == "forbidden" and argument):
            return self._refuse(verb, text, self._wrong_parameter(needed=wanted == "required"))
        if CONTROL_BUT_TAB.search(text):
            return self._refuse(verb, text, answers.BAD_COMMAND)
        return self._owe(VendorCommand(verb, text), self._state)


# A check takes the verb, the verb as it came, and the argument; a handler the verb, the argument, and the state that
# follows.
Check = Callable[[ServerCommands, str, bytes, bytes], Event | None]
Handler = Callable[[ServerCommands, str, bytes, Any], Event | None]

_CHECKS: Final[dict[str, Check]] = {
    # Commands that bring no message nearer:
    **dict.fromkeys(("NOOP", "RSET", "VRFY", "EXPN", "HELP", "HELO", "EHLO", "LHLO"), ServerCommands._check_idle),
    "STARTTLS": ServerCommands._check_starttls,
    "XCLIENT": ServerCommands._check_xclient,
    "AUTH": ServerCommands._check_auth,
    "BDAT": ServerCommands._check_bdat,
}

_HANDLERS: Final[dict[str, Handler]] = {
    "HELO": ServerCommands._helo,
    "EHLO": ServerCommands._helo,
    "LHLO": ServerCommands._helo,
    "MAIL": ServerCommands._mail,
    "RCPT": ServerCommands._rcpt,
    "DATA": ServerCommands._data,
    "BDAT": ServerCommands._bdat,
    "RSET": ServerCommands._rset,
    "NOOP": ServerCommands._noop,
    "VRFY": ServerCommands._vrfy,
    "EXPN": ServerCommands._vrfy,
    "HELP": ServerCommands._help,
    "QUIT": ServerCommands._quit,
    "STARTTLS": ServerCommands._starttls,
    "AUTH": ServerCommands._auth,
    "XCLIENT": ServerCommands._xclient,
}


def dispatch_table(profile: Profile, lmtp: bool) -> dict[State, dict[bytes, tuple[str, Check | None, Handler, Row]]]:
    """The order table of `mailfront_proto.smtp.states` with checks and handlers beside it, for one lookup by what
    came in. Commands that are not there are unknown."""
    order = command_table(profile, lmtp)
    return {
        state: {
            verb.encode(): (
                verb,
                _CHECKS.get(verb),
                _HANDLERS[verb]
                if verb == "BDAT" or isinstance(order[state, verb], State)  # BDAT reads its octets in any case
                else ServerCommands._out_of_order,
                order[state, verb],
            )
            for verb in COMMANDS
            if order[state, verb] is not NOT_IMPLEMENTED
        }
        for state in COMMAND_STATES
    }
