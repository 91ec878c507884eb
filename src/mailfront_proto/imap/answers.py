"""What the IMAP server machine says by itself: every text in one place, with the clause it answers to.

Who speaks the compat profile gets them without their response codes.
"""

from typing import Final

from mailfront_proto.imap.replies import Reply

# Framing and syntax (RFC 9051 section 7.1.3)
SYNTAX_ERROR: Final = Reply("BAD", "Syntax error")
MISSING_INTEGER: Final = Reply("BAD", "Syntax error: missing integer")
INVALID_INTEGER: Final = Reply("BAD", "Syntax error: invalid integer")
MISSING_LF: Final = Reply("BAD", "Syntax error: missing LF after integer")
UNTERMINATED: Final = Reply("BAD", "Syntax error: unterminated quoted string")
NEEDS_ARGUMENTS: Final = Reply("BAD", "Syntax error: command requires arguments")
NEEDS_NONE: Final = Reply("BAD", "Syntax error: command requires no arguments")
TOO_MANY_ARGUMENTS: Final = Reply("BAD", "Too many command arguments")
LINE_TOO_LONG: Final = Reply("BAD", "Command line too long")
LITERAL_TOO_LONG: Final = Reply("BAD", "Literal too long")
UNIMPLEMENTED: Final = Reply("BAD", "Unimplemented command")
LOGIN_ARGUMENTS: Final = Reply("BAD", "LOGIN command requires exactly two arguments")
AUTHENTICATE_ARGUMENTS: Final = Reply("BAD", "AUTHENTICATE command requires only one or two arguments")
ID_ARGUMENTS: Final = Reply("BAD", "ID command requires NIL or a list of pairs")  # RFC 2971 section 3.3

# Done
CAPABILITY_DONE: Final = Reply("OK", "CAPABILITY completed")
NOOP_DONE: Final = Reply("OK", "NOOP completed")
ID_DONE: Final = Reply("OK", "ID completed")
LOGOUT_DONE: Final = Reply("OK", "LOGOUT completed")
LOGGING_OUT: Final = Reply("BYE", "Logging out")  # RFC 9051 section 6.1.3
TLS_READY: Final = Reply("OK", "Begin TLS negotiation now")

# Login (RFC 5530 section 3)
LOGIN_FAILED: Final = Reply("NO", "LOGIN failed", "AUTHENTICATIONFAILED")
LOGIN_UNAVAILABLE: Final = Reply("NO", "LOGIN failed", "UNAVAILABLE")
LOGIN_DISABLED: Final = Reply("NO", "LOGIN is disabled", "PRIVACYREQUIRED")
AUTHENTICATE_FAILED: Final = "AUTHENTICATE failed: "
"""What stands in front of the reason."""

# STARTTLS (RFC 9051 section 6.2.1)
TLS_ALREADY: Final = Reply("BAD", "TLS is in use already")
TLS_UNAVAILABLE: Final = Reply("BAD", "Unimplemented command")
TLS_REFUSED: Final = Reply("NO", "TLS is not available now")
TLS_PIPELINED: Final = Reply("BAD", "Commands may not follow STARTTLS before TLS")

# The last word
TOO_MANY_ERRORS: Final = Reply("BYE", "Too many errors, closing connection")
TOO_MANY_IDLE_COMMANDS: Final = Reply("BYE", "Too many commands without a login, closing connection")
TOO_MANY_AUTH_FAILURES: Final = Reply("BYE", "Too many failed logins, closing connection")
LOST: Final = Reply("BYE", "Command too long, closing connection")
PLAIN_TEXT: Final = Reply("BYE", "Plain text behind STARTTLS, closing connection")
NOT_IMAP: Final = Reply("BYE", "This is an IMAP server, closing connection")
