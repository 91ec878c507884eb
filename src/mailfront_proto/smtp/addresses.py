"""The argument of MAIL and RCPT: envelope addresses, read and printed (RFC 5321 section 4.1.2).

Strategy: one precompiled pattern takes the form that nearly every client sends, in every syntax:
``FROM:<dot-string@domain>`` and printable parameters. Whatever it does not match goes to one of two
readers: the RFC's grammar with named leniencies, or the free scanner of the original (`ORIGINAL`).

Both cut the address out of the line with a pattern first and look at its pieces afterwards. The patterns
use possessive repeats only, so that nothing is ever tried twice: reading is linear in the argument, and
total: any bytes give an address or an `AddressError`, which carries the reply that the peer deserves.
"""

import re
from typing import Final

from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.record import record
from mailfront_proto.smtp.replies import Reply


class AddressError(ValueError):
    """The argument holds no acceptable address; `reply` is the answer to send."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@record(frozen=True)
class AddressSyntax:
    """What is taken for an address. Without arguments: RFC 5321 and nothing else.

    Every field but the last is a leniency of its own; change one with ``dataclasses.replace``. A field that
    is None, among the limits, sets no limit. Limits below the RFC's minimum are a `ValueError`.

    `blanks_after_colon`: ``FROM: <a@b>``. Not in the RFC ("some clients", section 3.3, notes it as an
    error), sent by many scripts and devices, and taken by every large server.

    `missing_brackets`: ``FROM:a@b``. Likewise.

    `missing_domain`: ``<root>``, the name of a local user. ``RCPT TO:<postmaster>`` is taken without this
    flag (section 4.1.1.3).

    `loose_dots`: dots at the start, the end or in a row in a local part; some carriers gave such addresses
    to their customers for years.

    `domain_underscores`: ``a@my_host.example``: no host name (RFC 952), but names that DNS serves.

    `domain_hyphens`: labels that begin or end with a hyphen, for the same reason.

    `domain_trailing_dot`: ``a@example.org.``, an absolute domain name. The dot is dropped, so that it
    hides the domain from no list.

    `eight_bit`: bytes of 128 and above pass without SMTPUTF8, valid UTF-8 or not.

    `max_local_part`, `max_domain`, `max_path`: octets, quotes included, brackets counted in the path as
    RFC 5321 section 4.5.3.1 (.1, .2, .3) says; its minimum is the default. A source route does not count.

    `free_form`: the scanner of the original instead of the grammar (see `parse_path`): quotes and
    backslashes are removed, nothing else is checked, and the flags above (but for limits and `eight_bit`)
    say nothing. Control bytes are refused here too.
    """

    blanks_after_colon: bool = False
    missing_brackets: bool = False
    missing_domain: bool = False
    loose_dots: bool = False
    domain_underscores: bool = False
    domain_hyphens: bool = False
    domain_trailing_dot: bool = False
    eight_bit: bool = False
    max_local_part: int | None = 64
    max_domain: int | None = 255
    max_path: int | None = 256
    free_form: bool = False

    def __post_init__(self) -> None:
        for limit, floor in ((self.max_local_part, 64), (self.max_domain, 255), (self.max_path, 256)):
            if limit is not None and limit < floor:
                raise ValueError(f"a limit of {limit} octets is below RFC 5321's minimum, {floor}")


STRICT: Final = AddressSyntax()
"""RFC 5321 section 4.1.2 as it stands. (Source routes belong to it: they are read, and dropped.)"""

TOLERANT: Final = AddressSyntax(
    blanks_after_colon=True,
    missing_brackets=True,
    missing_domain=True,
    loose_dots=True,
    domain_underscores=True,
    domain_hyphens=True,
    domain_trailing_dot=True,
)
"""The default profile: RFC 5321, and what the best servers bear."""

ORIGINAL: Final = AddressSyntax(
    free_form=True, eight_bit=True, max_local_part=None, max_domain=None, max_path=None
)
"""The compat profile: the original's free scanner, without limits of its own."""


@record(hashable=True)
class Address:
    """An envelope address, without its brackets. Treat it as read-only: it is hashable, and a frozen class
    would cost twice as much to make.

    `raw`: the bytes as an envelope backend gets them: ``bob@example.org``, empty for the null path,
    ``"a b"@example.org`` with its quotes (those that were read by `ORIGINAL` have none).

    ``Address(raw)`` checks nothing; `Address.from_str` does. ``str(address)`` decodes UTF-8, other 8-bit
    bytes become surrogate escapes.
    """

    raw: bytes

    @classmethod
    def from_str(cls, text: str, syntax: AddressSyntax = TOLERANT) -> "Address":
        """The address that `text` writes, as ``bob@example.org`` (empty: the null path; no brackets).

        Non-ASCII text becomes UTF-8 (RFC 6531). Raises `AddressError` for what is no address in `syntax`.
        """
        if not text:
            return cls(b"")
        path = b"FROM:<" + text.encode("utf-8", "surrogateescape") + b">"
        address, rest = parse_path(path, b"FROM", syntax, utf8=True)
        if rest or address.is_null:
            raise AddressError(SYNTAX_ERROR)
        return address

    @property
    def local_part(self) -> bytes:
        """What stands before the last ``@`` outside quotes; everything, where there is none."""
        return self._split()[0]

    @property
    def domain(self) -> bytes:
        """What stands behind the last ``@`` outside quotes: a domain or an address literal, or empty."""
        return self._split()[1]

    @property
    def is_null(self) -> bool:
        """Whether this is the null path ``<>`` (RFC 5321 section 4.5.5)."""
        return not self.raw

    @property
    def is_ascii(self) -> bool:
        """Whether a server without SMTPUTF8 (RFC 6531) can be given this address."""
        return self.raw.isascii()

    def path(self, syntax: AddressSyntax = TOLERANT) -> bytes:
        """The address as MAIL and RCPT take it: ``<bob@example.org>``, the local part quoted if it must be.

        Reading it with the same `syntax` gives an equal address. Give `ORIGINAL` for an address that was
        read by it, so that quotes it lost are put back and quotes it has are taken as its own.
        """
        if not self.raw:
            return b"<>"
        if syntax.free_form:
            return _free_path(self.raw)
        local, domain = self._split()
        bare = _LOOSE_DOT_STRING if syntax.loose_dots else _DOT_STRING
        if not _QUOTED.match(local) and not bare.match(local):
            local = quote_local_part(local)
        return b"<" + local + b"@" + domain + b">" if domain else b"<" + local + b">"

    def __str__(self) -> str:
        return self.raw.decode("utf-8", "surrogateescape")

    def _split(self) -> tuple[bytes, bytes]:
        raw = self.raw
        local, at, domain = raw.rpartition(b"@")
        if not at or (raw.startswith(b'"') and raw.endswith(b'"') and len(raw) > 1):
            return raw, b""
        return local, domain


SYNTAX_ERROR: Final = Reply(501, "5.5.2 Syntax error in address parameter.")
NON_ASCII: Final = Reply(553, "5.6.7 Non-ASCII addresses need SMTPUTF8.")  # RFC 6531 section 3.5

# RFC 5322 section 3.2.3
_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
COMMON_ADDRESS: Final = _ATEXT + rb"++(?:\." + _ATEXT + rb"++)*+@[A-Za-z0-9]++(?:(?:-++|\.)[A-Za-z0-9]++)*+"
"""A pattern: Dot-string "@" Domain (RFC 5321 section 4.1.2). What it matches is an address in every syntax, if it has
no more than `MAX_COMMON_ADDRESS` octets."""
MAX_COMMON_ADDRESS: Final = 64
"""An address of no more octets than this is within every limit that may be set."""

# An address and printable parameters
_COMMON_REST = rb":<(" + COMMON_ADDRESS + rb")>(?: ++([ -~]*+))?\Z"
_COMMON = {
    b"FROM": compile_later(b"(?i:FROM)" + _COMMON_REST),
    b"TO": compile_later(b"(?i:TO)" + _COMMON_REST),
}


def parse_path(
    argument: bytes, keyword: bytes, syntax: AddressSyntax, utf8: bool = False
) -> tuple[Address, bytes]:
    r"""The address in `argument`, and what follows it: give that to `split_parameters`.

    `argument`: what follows the verb, without the blanks between them and without the line end.
    `keyword`: ``b"FROM"`` (MAIL) or ``b"TO"`` (RCPT). `utf8`: whether SMTPUTF8 is in force, so that UTF-8
    is allowed (RFC 6531 section 3.3); other 8-bit bytes never are, but for `AddressSyntax.eight_bit`.

    Control bytes anywhere in `argument` are refused in every syntax, but for blanks at its end (RFC 5321
    section 4.1.1 asks servers to bear them) and, in free form, tabs outside the address.

    With `AddressSyntax.free_form` the keyword is not looked at: the address is what stands between the first
    ``<`` and the next ``>`` outside quotes; without a ``<`` it starts behind the first ``:`` (or else the
    first space) and blanks, and ends at a space outside quotes. ``"`` toggles quoting and is removed, ``\``
    takes the next byte literally. A leading ``@`` with a ``:`` later is a source route and is cut through
    that colon, but not from a bare address that ends the line.

    Raises `AddressError`: 501 for what is no address or too long a one, 553 5.6.7 for 8-bit bytes.
    """
    match = _COMMON[keyword].match(argument)
    if match is not None:
        raw, rest = match.groups(b"")
        if len(raw) > MAX_COMMON_ADDRESS:
            _check_lengths(raw, keyword, syntax)
        return Address(raw), rest
    raw, rest = _scan_freely(argument) if syntax.free_form else _parse(argument, keyword, syntax)
    if not raw.isascii() and not syntax.eight_bit:
        if not utf8:
            raise AddressError(NON_ASCII)
        _check_utf8(raw)
    _check_lengths(raw, keyword, syntax)
    return Address(raw), rest


def split_parameters(rest: bytes, syntax: AddressSyntax) -> list[bytes]:
    """The ESMTP parameters in `rest`, the second value of `parse_path`, each as it came.

    Blanks separate them, a run of blanks as one does. In `AddressSyntax.free_form` each blank ends a
    parameter, so that a doubled one makes an empty parameter.
    """
    if not rest:
        return []
    if not syntax.free_form:
        return rest.split()
    return rest.removesuffix(b" ").split(b" ")


def quote_local_part(local_part: bytes) -> bytes:
    """A local part in the form that RFC 5321 wants: as it is if it is a Dot-string, else as a Quoted-string
    (section 4.1.2). `local_part` is taken literally: quotes in it are escaped."""
    if _DOT_STRING.match(local_part):
        return local_part
    return b'"' + _MUST_ESCAPE.sub(rb"\\\g<0>", local_part) + b'"'


_CONTROL = compile_later(rb"[\x00-\x1f\x7f]")
_MUST_ESCAPE = compile_later(rb'["\\]')

# RFC 5321 section 4.1.2, with the UTF8-non-ascii of RFC 6531 section 3.3
_UTEXT = rb"[\x80-\xff" + _ATEXT[1:]
_DOT_STRING = compile_later(_UTEXT + rb"++(?:\." + _UTEXT + rb"++)*+\Z")
_LOOSE_DOT_STRING = compile_later(rb"[." + _UTEXT[1:] + rb"++\Z")
_QUOTED_STRING = rb'"(?:[^"\\\x00-\x1f\x7f]++|\\[ -~])*+"'
_QUOTED = compile_later(_QUOTED_STRING + rb"\Z")
_DOMAIN = compile_later(rb"[A-Za-z0-9\x80-\xff]++(?:(?:-++|\.)[A-Za-z0-9\x80-\xff]++)*+\Z")

# [ A-d-l ":" ] ( Quoted-string / Dot-string ) [ "@" ( Domain / address-literal ) ], pieces unchecked
_PIECES = compile_later(
    rb'(?:(@[^:<>"\\ ]*+):)?'
    rb"(" + _QUOTED_STRING + rb'|[^@"\\<>()\[\],:; ]*+)'
    rb'(?:@(\[[^\]"\\<> ]*+\]|[^@"\\<>()\[\],:; ]*+))?'
)


def _parse(argument: bytes, keyword: bytes, syntax: AddressSyntax) -> tuple[bytes, bytes]:
    """The RFC's grammar, with the leniencies of `syntax`: the address and the rest."""
    argument = argument.rstrip(b" \t")
    if _CONTROL.search(argument):
        raise AddressError(SYNTAX_ERROR)
    start = len(keyword) + 1
    if argument[:start].upper() != keyword + b":":
        raise AddressError(SYNTAX_ERROR)
    if syntax.blanks_after_colon:
        while argument[start : start + 1] == b" ":
            start += 1
    bracketed = argument.startswith(b"<", start)
    if not bracketed and not syntax.missing_brackets:
        raise AddressError(SYNTAX_ERROR)
    match = _PIECES.match(argument, start + bracketed)
    assert match is not None, "every piece may be empty"
    end = match.end()
    if bracketed:
        if not argument.startswith(b">", end):
            raise AddressError(SYNTAX_ERROR)
        end += 1
    rest = argument[end:].lstrip(b" ")
    if rest and (not argument.startswith(b" ", end) or (not bracketed and rest.startswith(b"<"))):
        raise AddressError(SYNTAX_ERROR)  # "<a@b>X" has no blank, "Bob <bob@example.org>" a display name
    # section 4.1.2: a Reverse-path may be "<>", a Forward-path may not
    null = bracketed and not match.group() and keyword == b"FROM"
    return b"" if null else _assemble(match, keyword, syntax), rest


def _assemble(match: re.Match[bytes], keyword: bytes, syntax: AddressSyntax) -> bytes:
    """The address that the pieces in `match` make, if each is well formed."""
    route, local, domain = match.groups()
    quoted = local.startswith(b'"')
    if not quoted and not (_LOOSE_DOT_STRING if syntax.loose_dots else _DOT_STRING).match(local):
        raise AddressError(SYNTAX_ERROR)
    if route is not None:  # section 4.1.2: "@" Domain *( "," "@" Domain ), to be ignored (appendix C)
        for hop in route.split(b","):
            if not hop.startswith(b"@"):
                raise AddressError(SYNTAX_ERROR)
            _check_domain(hop[1:], syntax)
    if domain is None:
        # section 4.1.1.3: "TO:<Postmaster>", whatever its case
        postmaster = keyword == b"TO" and local.lower() == b"postmaster"
        if quoted or route is not None or not (syntax.missing_domain or postmaster):
            raise AddressError(SYNTAX_ERROR)
        return bytes(local)
    if domain.startswith(b"["):
        _check_literal(domain)
        return bytes(local + b"@" + domain)
    return bytes(local + b"@" + _check_domain(domain, syntax))


def _check_domain(domain: bytes, syntax: AddressSyntax) -> bytes:
    """`domain`, without a trailing dot, if `syntax` allows it."""
    if syntax.domain_trailing_dot:
        domain = domain.removesuffix(b".")
    tested = domain
    if syntax.domain_underscores:
        tested = tested.replace(b"_", b"a")
    if syntax.domain_hyphens:
        tested = tested.replace(b"-", b"a")
    if not _DOMAIN.match(tested):
        raise AddressError(SYNTAX_ERROR)
    return domain


_IPV4 = compile_later(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}\Z")
_HEX16 = compile_later(rb"[0-9A-Fa-f]{1,4}\Z")


def _check_literal(literal: bytes) -> None:
    """Section 4.1.3: ``[192.0.2.1]`` or ``[IPv6:…]``; no other tag is registered."""
    inner = literal[1:-1]
    if not (is_ipv6(inner[5:]) if inner[:5].upper() == b"IPV6:" else is_ipv4(inner)):
        raise AddressError(SYNTAX_ERROR)


def is_ipv4(text: bytes) -> bool:
    """Whether this is an IPv4 address as section 4.1.3 writes one: four numbers up to 255."""
    return _IPV4.match(text) is not None and all(int(part) <= 255 for part in text.split(b"."))


def is_ipv6(text: bytes) -> bool:
    """Whether this is an IPv6 address of section 4.1.3: IPv6-full, IPv6-comp, and both with an IPv4 address as their
    last two groups."""
    front, last_colon, last = text.rpartition(b":")
    if b"." in last:
        if not last_colon or not is_ipv4(last):
            return False
        text = front + b":0:0"
    head, gap, tail = text.partition(b"::")
    groups = [group for half in (head, tail) if half for group in half.split(b":")]
    if not all(_HEX16.match(group) for group in groups):
        return False
    return len(groups) <= 6 if gap else len(groups) == 8  # "::" stands for two groups at least


def _check_utf8(raw: bytes) -> None:
    """RFC 6531 section 3.3: UTF-8, and no control characters in it either (U+0080 to U+009F)."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise AddressError(SYNTAX_ERROR) from None
    if any("\x80" <= c <= "\x9f" for c in text):
        raise AddressError(SYNTAX_ERROR)


def _check_lengths(raw: bytes, keyword: bytes, syntax: AddressSyntax) -> None:
    """Section 4.5.3.1. RFC 3463: X.1.7 is a bad sender's address, X.1.3 a bad recipient's."""
    local, domain = Address(raw)._split()
    for size, limit, what in (
        (len(local), syntax.max_local_part, "Local part"),
        (len(domain), syntax.max_domain, "Domain"),
        (len(raw) + 2, syntax.max_path, "Address"),
    ):
        if limit is not None and size > limit:
            code = "5.1.7" if keyword == b"FROM" else "5.1.3"
            raise AddressError(Reply(501, f"{code} {what} too long (limit {limit} octets)."))


# The bytes of an address as the original scans them: literal ones, escaped ones, quoted ones. A quote that
# is not closed reaches to the end of the line.
_FREE_QUOTED = rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)'
_FREE_BRACKETED = compile_later(rb'<((?:[^"\\>]++|\\.|' + _FREE_QUOTED + rb")*+)>", re.DOTALL)
_FREE_BARE = compile_later(rb'((?:[^"\\ ]++|\\.|' + _FREE_QUOTED + rb")*+)(?: |\Z)", re.DOTALL)
_FREE_MARKS = compile_later(rb'\\(.)|"', re.DOTALL)


def _scan_freely(argument: bytes) -> tuple[bytes, bytes]:
    """The scanner of the original: the address and the rest."""
    if _CONTROL.search(argument.replace(b"\t", b"")):
        raise AddressError(SYNTAX_ERROR)
    start = argument.find(b"<")
    bracketed = start >= 0
    if bracketed:
        match = _FREE_BRACKETED.match(argument, start)
    else:
        start = argument.find(b":")
        if start < 0:
            start = argument.find(b" ")
        if start < 0:
            raise AddressError(SYNTAX_ERROR)
        start += 1
        while argument[start : start + 1] == b" ":
            start += 1
        match = _FREE_BARE.match(argument, start) if start < len(argument) else None
    if match is None:  # nothing there, no ">", or a backslash with nothing behind it
        raise AddressError(SYNTAX_ERROR)
    raw = _FREE_MARKS.sub(rb"\1", match[1])
    if b"\t" in raw:
        raise AddressError(SYNTAX_ERROR)
    ends_line = match.end(1) == len(argument)  # never true of a bracketed one
    if raw.startswith(b"@") and not ends_line:
        raw = raw[raw.find(b":") + 1 :]
    return raw, argument[match.end() :].lstrip(b" ")


_FREE_DOMAIN_MARKS = compile_later(rb'["\\>]')


def _free_path(raw: bytes) -> bytes:
    """An address without quotes of its own, printed so that the free scanner reads it back."""
    local, at, domain = raw.rpartition(b"@")
    if not at:
        local, domain = raw, b""
    if local and not _LOOSE_DOT_STRING.match(local):
        local = quote_local_part(local)
    # What looks like a source route, and is none, gets an empty one in front that is cut instead of it.
    route = b"@:" if raw.startswith(b"@") and b":" in raw else b""
    return b"<" + route + local + at + _FREE_DOMAIN_MARKS.sub(rb"\\\g<0>", domain) + b">"

