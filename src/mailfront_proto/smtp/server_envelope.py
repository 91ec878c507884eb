"""The envelope: MAIL and RCPT (RFC 5321 sections 4.1.1.2 and 4.1.1.3), their addresses and parameters."""

from typing import Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.smtp import answers
from mailfront_proto.smtp.addresses import (
    NON_ASCII,
    SYNTAX_ERROR,
    Address,
    AddressError,
    parse_path,
    split_parameters,
)
from mailfront_proto.smtp.events import Event, Mail, Recipient
from mailfront_proto.smtp.parameters import NULL_SUBMITTER, BodyType, MailOptions, ParameterError, RecipientOptions
from mailfront_proto.smtp.replies import Reply
from mailfront_proto.smtp.server_message import ServerMessage
from mailfront_proto.smtp.server_session import as_text
from mailfront_proto.smtp.states import State

CONTROL_BUT_TAB: Final = compile_later(r"[\x00-\x08\x0a-\x1f\x7f]")

# Bound once: an attribute of an Enum costs a descriptor call each time.
_CONNECTED: Final = State.CONNECTED
_READY: Final = State.READY


class ServerEnvelope(ServerMessage):
    """A session that takes envelopes."""

    __slots__ = ()

    def _mail(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if self._state is not _CONNECTED and self._state is not _READY:
            self._state = _READY
            self._drop_transaction()
            spent = self._budgets.idle()  # a sender after another, and no message
            if spent is not None:
                return self._refuse(verb, as_text(argument), spent, transaction_dropped=True)
        return self._path(Mail, verb, b"FROM", argument, next_state)

    def _rcpt(self, verb: str, argument: bytes, next_state: State) -> Event | None:
        if self._transaction.recipients >= self._rules.max_recipients:
            return self._refuse(verb, as_text(argument), answers.TOO_MANY_RECIPIENTS)
        return self._path(Recipient, verb, b"TO", argument, next_state)

    def _path(
        self, kind: type[Mail] | type[Recipient], verb: str, keyword: bytes, argument: bytes, next_state: State
    ) -> Event | None:
        profile = self.profile
        if kind is Recipient:
            smtputf8 = self._transaction.smtputf8
        else:  # the word comes behind the address; whether it is the parameter is seen below
            smtputf8 = not argument.isascii() and b" SMTPUTF8" in argument.upper() and "SMTPUTF8" in self._advertised
        try:
            address, rest = parse_path(argument, keyword, profile.addresses, smtputf8)
        except AddressError as error:
            reply = error.reply
            if reply is SYNTAX_ERROR and self._enhances:  # RFC 3463 section 3.2; else in the original's words
                reply = answers.BAD_SENDER if kind is Mail else answers.BAD_RECIPIENT
            return self._refuse_path(verb, argument, reply)
        text = argument.decode("utf-8", "surrogateescape")
        if not rest:
            if smtputf8 and kind is Mail:
                return self._refuse_path(verb, argument, NON_ASCII)
            return self._owe(kind(address, [], text), next_state)
        parameters = [as_text(parameter) for parameter in split_parameters(rest, profile.addresses)]
        if len(parameters) > profile.limits.parameters:
            return self._refuse_path(verb, argument, answers.TOO_MANY_PARAMETERS)
        if not profile.parameters_checked:
            if any(CONTROL_BUT_TAB.search(parameter) for parameter in parameters):
                return self._refuse_path(verb, argument, answers.BAD_ADDRESS)
            return self._owe(kind(address, parameters, text), next_state)
        try:
            if kind is Mail:
                return self._owe(Mail(address, parameters, text, self._mail_options(parameters, address)), next_state)
            options = RecipientOptions.parse(parameters, self._advertised, self._additions.parameters[verb])
            return self._owe(Recipient(address, parameters, text, options), next_state)
        except ParameterError as error:
            return self._refuse_path(verb, argument, error.reply)

    def _mail_options(self, parameters: list[str], address: Address) -> MailOptions:
        """What the parameters of a MAIL say, and what that means for its transaction."""
        options = MailOptions.parse(parameters, self._advertised, self._additions.parameters["MAIL"])
        if options.size is not None and self.message_size is not None and options.size > self.message_size:
            raise ParameterError(answers.TOO_BIG)
        if not options.smtputf8 and not address.is_ascii and not self.profile.addresses.eight_bit:
            raise ParameterError(NON_ASCII)
        self._transaction.smtputf8 = options.smtputf8
        self._transaction.binary = options.body is BodyType.BINARY_MIME
        if options.auth is not None and (self.anonymous or not self.authenticated):
            # RFC 4954 section 5: a client that is not trusted may not say who submitted the message.
            return options.with_auth(NULL_SUBMITTER)
        return options

    def _refuse_path(self, verb: str, argument: bytes, reply: Reply) -> Event:
        event = self._refuse(verb, as_text(argument), reply, transaction_dropped=verb == "MAIL")
        if verb == "RCPT" and reply.code >= 500:
            self._end_with(self._budgets.refused_recipient())
        return event
