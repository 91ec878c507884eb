"""The AUTH command of a client (RFC 4954 section 4)."""

from mailfront_proto.sasl.client_exchange import ClientExchange
from mailfront_proto.smtp.client_lines import MAX_AUTH_LINE, command_line


def auth_line(name: str, exchange: ClientExchange) -> bytes:
    """AUTH with the mechanism's `name`, and with the initial response if there is one that fits into the line."""
    line = b"AUTH " + name.encode("ascii")
    initial_response = exchange.initial_response(MAX_AUTH_LINE - len(line) - 3)  # a blank and CRLF
    if initial_response is not None:
        line += b" " + initial_response
    return command_line("AUTH", line, limit=MAX_AUTH_LINE)
