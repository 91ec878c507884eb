"""What the server machine says by itself: every text in one place, with the clause it answers to."""

from mailfront_proto.smtp.replies import Reply

# Framing and syntax
LINE_TOO_LONG = Reply(500, "5.5.2 Line too long")  # RFC 5321 section 4.5.3.1.9
RESPONSE_TOO_LONG = Reply(500, "5.5.6 Authentication exchange line is too long")  # RFC 4954 section 4
BAD_COMMAND = Reply(500, "5.5.2 Syntax error in command")
BARE_LINE_END = Reply(500, "5.5.2 Bare CR or LF in a command is not allowed")
BARE_LINE_END_IN_MESSAGE = Reply(554, "5.6.0 Bare CR or LF in a message is not allowed")
BAD_ADDRESS = Reply(501, "5.5.2 Syntax error in address parameter.")
BAD_SENDER = Reply(501, "5.1.7 Syntax error in address parameter.")
BAD_RECIPIENT = Reply(501, "5.1.3 Syntax error in address parameter.")
BAD_HELO = Reply(501, "5.5.2 HELO and EHLO take a host name")
PARAMETER_NEEDED = Reply(501, "5.5.2 Syntax error, command requires a parameter.")
PARAMETER_NOT_ALLOWED = Reply(501, "5.5.2 Syntax error, no parameters allowed.")

# Order
NOT_IMPLEMENTED = Reply(500, "5.5.1 Not implemented.")
NEED_HELO = Reply(503, "5.5.1 Send HELO or EHLO first")
NEED_LHLO = Reply(503, "5.5.1 Send LHLO first")
NEED_MAIL = Reply(503, "5.5.1 You must send MAIL FROM: first")
NEED_RECIPIENT = Reply(503, "5.5.1 You must send RCPT TO: first")

IN_CHUNKS = Reply(503, "5.5.1 A message has begun with BDAT: send BDAT or RSET")  # RFC 3030 section 2
BINARY_NEEDS_BDAT = Reply(503, "5.5.1 BODY=BINARYMIME needs BDAT")  # RFC 3030 section 3
NO_XCLIENT_IN_TRANSACTION = Reply(503, "5.5.1 XCLIENT is not permitted during a mail transaction")

# Limits
TOO_MANY_UNKNOWN = Reply(503, "5.5.0 Too many unimplemented commands.\n5.5.0 Closing connection.")
TOO_MANY_ERRORS = Reply(421, "4.7.0 Too many errors, closing connection")
TOO_MANY_IDLE_COMMANDS = Reply(421, "4.7.0 Too many commands without a message, closing connection")
TOO_MANY_REFUSED = Reply(421, "4.7.0 Too many refused recipients, closing connection")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3 Too many recipients")  # RFC 5321 section 4.5.3.1.10
TOO_MANY_AUTH_FAILURES = Reply(421, "4.7.0 Too many failed authentications, closing connection")
NOT_SMTP = Reply(421, "4.7.0 This is an SMTP server, closing connection")

# ESMTP parameters (RFC 5321 section 4.1.1.11)
UNKNOWN_PARAMETER = Reply(555, "5.5.4 MAIL or RCPT parameter not recognized or not implemented")
BAD_PARAMETER = Reply(501, "5.5.4 Syntax error in parameter")
REPEATED_PARAMETER = Reply(501, "5.5.4 Parameter given twice")
TOO_MANY_PARAMETERS = Reply(501, "5.5.4 Too many parameters")
TOO_BIG = Reply(552, "5.3.4 Message size exceeds fixed maximum message size")  # RFC 1870 section 6.1

# BDAT (RFC 3030)
CHUNK_RECEIVED = Reply(250, "2.0.0 Chunk received.")
BAD_CHUNK = Reply(501, "5.5.4 Syntax: BDAT octets [LAST]")

# XCLIENT
BAD_XCLIENT = Reply(501, "5.5.4 Syntax error in XCLIENT attribute")

# STARTTLS (RFC 3207)
TLS_ALREADY = Reply(503, "5.5.1 TLS is already in use")
TLS_NO_PARAMETER = Reply(501, "5.5.4 STARTTLS takes no parameter")
TLS_PIPELINED = Reply(554, "5.5.0 Unexpected pipelined commands following STARTTLS")
TLS_PIPELINED_INSIDE = Reply(500, "5.5.1 Unexpected pipelined commands following STARTTLS")

# AUTH (RFC 4954). Profiles without enhanced codes leave those of a failed exchange out, as the original does.
ALREADY_AUTHENTICATED = Reply(503, "5.5.1 You are already authenticated.")
NO_AUTH_IN_TRANSACTION = Reply(503, "5.5.1 AUTH is not permitted during a mail transaction")
NO_SUCH_MECHANISM = Reply(504, "5.5.4 Unrecognized authentication mechanism.")
INITIAL_RESPONSE_REFUSED = Reply(501, "5.7.0 Initial response not allowed.")
AUTH_FAILED = Reply(535, "5.7.8 Authentication failed.")
AUTHORIZATION_REFUSED = Reply(535, "5.7.8 Acting for another identity is not allowed")
AUTH_CANCELLED = Reply(501, "5.7.0 Authentication failed.")
UNDECODABLE_RESPONSE = Reply(501, "5.5.2 Could not decode the response.")
END_OF_FILE_IN_AUTH = Reply(535, "5.7.0 End of file reached.")

NOOP_DONE = Reply(250, "2.3.0 OK")
