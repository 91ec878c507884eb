"""Harness: envelope addresses.

The first byte chooses the syntax, the second whether it is MAIL or RCPT; the rest is the argument, as it came
and inside ``FROM:<…>``. What must hold: nothing but `AddressError` is raised, with a reply that can be sent;
what was read holds no control byte, and printed it reads back the same.
"""

from dataclasses import replace

from fuzz.oracles import check_round_trip
from mailfront_proto.smtp.addresses import (
    ORIGINAL,
    STRICT,
    TOLERANT,
    AddressError,
    parse_path,
    split_parameters,
)

SYNTAXES = (
    STRICT,
    TOLERANT,
    ORIGINAL,
    replace(TOLERANT, eight_bit=True),
    replace(ORIGINAL, eight_bit=False),
    replace(STRICT, missing_domain=True, domain_trailing_dot=True),
    replace(STRICT, loose_dots=True, missing_brackets=True),
    replace(TOLERANT, max_local_part=None, max_domain=None, max_path=None),
)
MAX_ARGUMENT = 2048


def check(data: bytes) -> None:
    """Read, print and read again."""
    if len(data) < 3 or len(data) > MAX_ARGUMENT:
        return
    syntax = SYNTAXES[data[0] & 7]
    utf8 = bool(data[0] & 8)
    keyword = b"TO" if data[1] & 1 else b"FROM"
    rest = data[2:].replace(b"\n", b"")
    for argument in (rest, keyword + b":" + rest, keyword + b":<" + rest + b">"):
        try:
            address, parameters = parse_path(argument, keyword, syntax, utf8)
        except AddressError as error:
            assert error.reply.code in (501, 553)
            assert error.reply.encode().endswith(b"\r\n")
            continue
        assert not any(byte < 0x20 or byte == 0x7F for byte in address.raw)
        if not (utf8 or syntax.eight_bit):
            assert address.is_ascii
        assert not any(b"\r" in parameter for parameter in split_parameters(parameters, syntax))
        local, domain = address.local_part, address.domain
        assert address.raw in (local, local + b"@" + domain)
        assert str(address).encode("utf-8", "surrogateescape") == address.raw
        if address.is_null and keyword == b"TO":
            continue  # the original's scanner takes it; a Forward-path has no such form
        check_round_trip(
            (address, b""),
            lambda value: keyword + b":" + value[0].path(syntax),
            lambda printed: parse_path(printed, keyword, syntax, utf8),
        )
