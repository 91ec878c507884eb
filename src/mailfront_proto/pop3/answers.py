"""What the server machine says by itself, and the usual answers of an application, with the clause each obeys.

The texts are those of the original; the response codes (RFC 2449 section 8) are left out by profiles without them.
"""

from typing import Final

from mailfront_proto.pop3.replies import Reply

DONE: Final = Reply("+OK")

# Syntax and order
SYNTAX_ERROR: Final = Reply("-ERR", "Syntax error")
LINE_TOO_LONG: Final = Reply("-ERR", "Line too long")  # RFC 2449 section 4
NOT_IMPLEMENTED: Final = Reply("-ERR", "Unimplemented")  # also: not in this state (RFC 1939 section 3)
NEED_USER: Final = Reply("-ERR", "Send USER first")

# Authentication
AUTH_FAILED: Final = Reply("-ERR", "Authentication failed", "AUTH")  # RFC 3206 section 6
SASL_FAILED: Final = Reply("-ERR", "Authentication failed.", "AUTH")
NO_SUCH_MECHANISM: Final = Reply("-ERR", "Unrecognized authentication mechanism.")
AUTHORIZATION_REFUSED: Final = Reply("-ERR", "Acting for another identity is not allowed", "AUTH")
AUTH_CANCELLED: Final = Reply("-ERR", "Authentication failed.")  # not AUTH: nothing is wrong with the credentials
UNDECODABLE_RESPONSE: Final = Reply("-ERR", "Could not decode the response.")
RESPONSE_TOO_LONG: Final = Reply("-ERR", "Authentication exchange line is too long")
INTERNAL_ERROR: Final = Reply("-ERR", "Internal error", "SYS/TEMP")  # RFC 3206 section 4

# TLS (RFC 2595 section 4)
BEGIN_TLS: Final = Reply("+OK", "Begin TLS negotiation")
TLS_ALREADY: Final = Reply("-ERR", "TLS is already in use")
TLS_PIPELINED: Final = Reply("-ERR", "Unexpected pipelined commands following STLS")

# Messages
OUT_OF_RANGE: Final = Reply("-ERR", "Message number out of range")
DELETED: Final = Reply("-ERR", "Message was deleted")
CANNOT_OPEN: Final = Reply("-ERR", "Could not open that message")
UTF8_ONLY: Final = Reply("-ERR", "This message can be sent in UTF8 mode only", "UTF8")  # RFC 6856 section 2.1
NOT_ALL_DELETED: Final = Reply("-ERR", "Some deleted messages were not removed")  # RFC 1939 section 6

# Languages (RFC 6856 section 3)
LANGUAGES: Final = Reply("+OK", "Language listing follows:")
LANGUAGE_CHANGED: Final = Reply("+OK", "en Language changed")
NO_SUCH_LANGUAGE: Final = Reply("-ERR", "en There is no such language here")

# Limits
TOO_MANY_USERS: Final = Reply("-ERR", "Too many USER commands issued")
TOO_MANY_ERRORS: Final = Reply("-ERR", "Too many errors, closing connection")
TOO_MANY_IDLE_COMMANDS: Final = Reply("-ERR", "Too many commands that do nothing, closing connection")
NOT_POP3: Final = Reply("-ERR", "This is a POP3 server, closing connection")

# For `abort`
TIMED_OUT: Final = Reply("-ERR", "Connection timed out")
