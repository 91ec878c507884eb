"""Hypothesis strategies for protocol values.

Each strategy draws *valid* values (what a conforming peer may send), but for `hostile_bytes`: what is nearly valid.
"""

import base64
import re
from collections.abc import Sequence

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "mailfront_proto.testing.strategies needs Hypothesis, which is not installed: pip install hypothesis"
    ) from error

from mailfront_proto.sasl.anonymous import AnonymousClient
from mailfront_proto.sasl.external import ExternalClient
from mailfront_proto.sasl.mechanism import SingleMessageClient
from mailfront_proto.sasl.oauthbearer import OAuthBearerClient
from mailfront_proto.sasl.scram import ScramClient
from mailfront_proto.sasl.xoauth2 import XOAuth2Client
from mailfront_proto.secret import Secret
from mailfront_proto.smtp.addresses import Address, quote_local_part
from mailfront_proto.smtp.replies import Reply

ATEXT = "abcxyzABC019!#$%&'*+/=?^_`{|}~-"
NON_ASCII = "éßñжю日本𝄞"
STUMBLING_BLOCKS = (
    b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n.\r\n", b"\n.\n", b"\0", b" ", b"\t", b"\x0b", b"\x85", b"\x7f",
    b"\x1b[2J", b"\xff", b"\xe2\x80\xa8", b".", b"<", b">", b"@", b":", b",", b'"', b"\\", b"(", b")", b"{", b"}",
    b"*", b"+", b"=", b"%", b"-1", b"+5", b"1_0", b"1e3", b"0", b"007", b"4294967295", b"18446744073709551617",
    b"9" * 400, "\u0663".encode(),
)  # fmt: skip
"""Bytes that parsers stumble over: odd line ends and blanks, delimiters, numbers that are none."""
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_NAME_CHARACTERS = st.characters(exclude_categories=["C", "Z"])


def dot_strings(alphabet: str = ATEXT) -> st.SearchStrategy[str]:
    """A Dot-string (RFC 5321 section 4.1.2) of at most 60 characters of `alphabet`."""
    return st.lists(st.text(alphabet, min_size=1, max_size=11), min_size=1, max_size=5).map(".".join)


def quoted_strings() -> st.SearchStrategy[str]:
    """A Quoted-string of at most 62 characters, empty ones and needless quoted pairs among them."""
    piece = st.one_of(
        st.sampled_from([chr(c) for c in range(0x20, 0x7F) if c not in b'"\\']),
        st.sampled_from([chr(c) for c in range(0x20, 0x7F)]).map(lambda c: "\\" + c),
    )
    return st.lists(piece, max_size=30).map(lambda pieces: '"' + "".join(pieces) + '"')


def domains(extra: str = "") -> st.SearchStrategy[str]:
    """A Domain of at most 5 labels; `extra`: characters that letters are drawn with."""
    edge = st.sampled_from("abzAZ019" + extra)
    middle = st.text("abzAZ019-" + extra, max_size=8)
    label = st.one_of(edge, st.builds(lambda a, m, b: a + m + b, edge, middle, edge))
    return st.lists(label, min_size=1, max_size=5).map(".".join)


def address_literals() -> st.SearchStrategy[str]:
    """``[192.0.2.1]`` or ``[IPv6:…]`` in all its forms (RFC 5321 section 4.1.3)."""
    ipv4 = st.lists(st.integers(0, 255).map(str), min_size=4, max_size=4).map(".".join)
    group = st.integers(0, 0xFFFF).flatmap(lambda n: st.sampled_from([f"{n:x}", f"{n:04X}"]))

    def groups(smallest: int, largest: int) -> st.SearchStrategy[str]:
        return st.lists(group, min_size=smallest, max_size=largest).map(":".join)

    def compressed(total: int) -> st.SearchStrategy[str]:
        return st.integers(0, total).flatmap(
            lambda n: st.builds("{}::{}".format, groups(0, n), groups(0, total - n))
        )

    ipv6 = st.one_of(
        groups(8, 8),
        compressed(6),
        st.builds("{}:{}".format, groups(6, 6), ipv4),
        st.builds(
            lambda head, tail: head + ("" if head.endswith("::") else ":") + tail, compressed(4), ipv4
        ),
    )
    tag = st.sampled_from(["IPv6:", "ipv6:", "IPV6:"])
    return st.one_of(ipv4.map("[{}]".format), st.builds("[{}{}]".format, tag, ipv6))


def strict_addresses(utf8: bool = False) -> st.SearchStrategy[Address]:
    """A Mailbox of RFC 5321 section 4.1.2 (RFC 6531 with `utf8`), or the null path."""
    extra = NON_ASCII if utf8 else ""
    local = st.one_of(dot_strings(ATEXT + extra), quoted_strings())
    domain = st.one_of(domains(extra), address_literals())
    mailbox = st.builds("{}@{}".format, local.filter(lambda text: len(text.encode()) <= 64), domain)
    return st.one_of(st.just(""), mailbox).map(lambda text: Address(text.encode()))


def tolerant_addresses() -> st.SearchStrategy[Address]:
    """What the default profile reads besides: loose dots, odd domains, no domain."""
    local = st.text(ATEXT + ".", min_size=1, max_size=60)
    domain = st.lists(st.text("abZ09-_", min_size=1, max_size=9), min_size=1, max_size=4).map(".".join)
    odd = st.one_of(local, st.builds("{}@{}".format, local, domain))
    return st.one_of(strict_addresses(), odd.map(lambda text: Address(text.encode())))


def free_addresses() -> st.SearchStrategy[Address]:
    """What the original's scanner may read: any bytes but control bytes, marks thrown in."""
    mark = st.sampled_from([b"@", b":", b'"', b"\\", b"<", b">", b" ", b","])
    other = st.integers(0x20, 0xFF).filter(lambda c: c != 0x7F).map(lambda c: bytes([c]))
    return st.lists(st.one_of(mark, other), max_size=20).map(lambda pieces: Address(b"".join(pieces)))


def mailboxes() -> st.SearchStrategy[Address]:
    """An address as most of the world has it, quoted where it must be; never null, never odd."""
    local = st.text(ATEXT + " .@", min_size=1, max_size=12).map(lambda t: quote_local_part(t.encode()))
    return st.builds(lambda a, b: Address(a + b"@" + b.encode()), local, domains())


def replies() -> st.SearchStrategy[Reply]:
    """A reply of 1 to 4 lines, as short as section 4.5.3.1.5 wants them, with bytes that are not UTF-8."""
    character = st.one_of(
        st.sampled_from("abc XYZ019.-<>@\t" + NON_ASCII),
        st.integers(0x80, 0xFF).map(lambda byte: chr(0xDC00 + byte)),  # a surrogate escape
    )
    text = st.lists(st.text(character, max_size=40), min_size=1, max_size=4).map("\n".join)
    # Surrogate escapes that together happen to be UTF-8 come back as what they spell.
    spelled = text.map(lambda t: t.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))
    sendable = spelled.filter(lambda t: re.search("[\x80-\x9f]", t) is None)
    return st.builds(Reply, st.integers(200, 599), sendable)


# -- SMTP commands -----------------------------------------------------------------------------------------


def commands() -> st.SearchStrategy[bytes]:
    """One SMTP command line with its CRLF (RFC 5321 section 4.1.1), verbs in any case; no DATA, AUTH or BDAT, behind
    which something else than commands follows."""
    host = st.one_of(domains(), address_literals())
    sender = strict_addresses().map(lambda address: b"MAIL FROM:<" + address.raw + b">")
    recipient = mailboxes().map(lambda address: b"RCPT TO:<" + address.raw + b">")
    parameter = st.sampled_from([b"", b" SIZE=100", b" BODY=8BITMIME", b" BODY=7BIT SIZE=0"])
    line = st.one_of(
        st.builds("{} {}".format, st.sampled_from(["EHLO", "HELO"]), host).map(str.encode),
        st.builds(lambda path, parameters: path + parameters, sender, parameter),
        recipient,
        st.sampled_from([b"RSET", b"NOOP", b"NOOP x y", b"HELP", b"QUIT"]),
        st.builds("{} {}".format, st.sampled_from(["VRFY", "EXPN"]), dot_strings()).map(str.encode),
    )
    return st.builds(_in_some_case, line, st.booleans()).map(lambda command: command + b"\r\n")


def _in_some_case(command: bytes, lower: bool) -> bytes:
    verb, blank, rest = command.partition(b" ")
    return (verb.lower() if lower else verb) + blank + rest


# -- POP3 and IMAP commands --------------------------------------------------------------------------------


def pop3_commands() -> st.SearchStrategy[bytes]:
    """One POP3 command line with its CRLF (RFC 1939, 2449, 6856), verbs in any case; no AUTH and no STLS, behind which
    something else than commands follows."""
    word = st.text(_PRINTABLE, min_size=1, max_size=20).map(str.encode)
    number = st.integers(1, 999_999_999).map(b"%d".__mod__)
    verb_of_number = st.sampled_from([b"LIST", b"UIDL", b"RETR", b"DELE"])
    line = st.one_of(
        st.sampled_from([b"CAPA", b"STAT", b"LIST", b"UIDL", b"NOOP", b"RSET", b"QUIT", b"UTF8", b"LANG", b"LANG en"]),
        st.builds(lambda verb, number: verb + b" " + number, verb_of_number, number),
        st.builds(lambda number, lines: b"TOP " + number + b" " + lines, number, number),
        st.builds(lambda verb, word: verb + b" " + word, st.sampled_from([b"USER", b"PASS"]), word),
    )
    return st.builds(_in_some_case, line, st.booleans()).map(lambda command: command + b"\r\n")


def imap_strings() -> st.SearchStrategy[bytes]:
    """An astring (RFC 9051 section 9): an atom, a quoted string, or a literal that does not wait (RFC 7888)."""
    atom = st.text("abcXYZ019!#$&'+,-./:;<=>?@[]^_`|}~", min_size=1, max_size=20).map(str.encode)
    quoted = st.text(_PRINTABLE + " ", max_size=20).map(lambda text: re.sub(r'(["\\\\])', r"\\\1", text).encode())
    literal = st.text(_PRINTABLE + " ()" + NON_ASCII, max_size=20).map(str.encode)
    return st.one_of(
        atom, quoted.map(lambda data: b'"' + data + b'"'), literal.map(lambda data: b"{%d+}\r\n%b" % (len(data), data))
    )


def imap_commands() -> st.SearchStrategy[bytes]:
    """One tagged IMAP command as they come before the login, with its CRLF and its literals, verbs in any case; no
    AUTHENTICATE and no STARTTLS, behind which something else than commands follows."""
    tag = st.text("abcXYZ019.-_", min_size=1, max_size=8).map(str.encode)
    login = st.builds(lambda name, password: b"LOGIN " + name + b" " + password, imap_strings(), imap_strings())
    value = st.sampled_from([b"NIL", b'"x"', b'""', b'"1 \\"2\\""'])
    pairs = st.lists(value.map(lambda value: b'"name" ' + value), min_size=1, max_size=1)
    identity = st.one_of(st.just(b"ID NIL"), pairs.map(lambda found: b"ID (" + b" ".join(found) + b")"))
    command = st.one_of(st.sampled_from([b"CAPABILITY", b"NOOP", b"LOGOUT"]), login, identity)
    return st.builds(
        lambda tag, command, lower: tag + b" " + _in_some_case(command, lower) + b"\r\n", tag, command, st.booleans()
    )


# -- other grammars ----------------------------------------------------------------------------------------


def netstrings(contents: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[bytes]:
    """A netstring around `contents` (default: any bytes, at most 300)."""
    inside = st.binary(max_size=300) if contents is None else contents
    return inside.map(lambda data: b"%d:%s," % (len(data), data))


def base64_lines(contents: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[bytes]:
    """A SASL message as SMTP, POP3 and IMAP send it (RFC 4954 section 4, RFC 5034): base64 and CRLF."""
    inside = st.binary(max_size=300) if contents is None else contents
    return inside.map(lambda data: base64.b64encode(data) + b"\r\n")


def plain_messages() -> st.SearchStrategy[bytes]:
    """The message of PLAIN (RFC 4616): ``[authzid] NUL authcid NUL passwd``, in UTF-8."""
    name = st.text(_NAME_CHARACTERS, min_size=1, max_size=20)
    authorization = st.one_of(st.just(""), name)
    return st.builds("{}\0{}\0{}".format, authorization, name, name).map(str.encode)


def sasl_names() -> st.SearchStrategy[str]:
    """A user name or password without control characters, some of it beyond ASCII."""
    return st.text(_NAME_CHARACTERS, min_size=1, max_size=20)


def sasl_messages(mechanism: str) -> st.SearchStrategy[bytes]:
    """The first message of a client of `mechanism`, decoded; of one that speaks first: not LOGIN, not CRAM-MD5."""
    names = sasl_names()
    prepared = st.text(f"{ATEXT},{NON_ASCII}", min_size=1, max_size=20)  # as SASLprep leaves it
    token = st.text("abzAZ019-._~+/", min_size=1, max_size=30).map(str.encode).map(Secret)
    host, port = st.one_of(st.just(""), domains()), st.integers(0, 65535)
    binding = st.builds(lambda data: ("tls-exporter", data), st.binary(min_size=1, max_size=32))
    nonce = st.binary(min_size=12, max_size=24)
    clients: dict[str, st.SearchStrategy[SingleMessageClient]] = {
        "EXTERNAL": st.builds(ExternalClient, st.one_of(st.just(""), names)),
        "ANONYMOUS": st.builds(AnonymousClient, names),
        "OAUTHBEARER": st.builds(OAuthBearerClient, token, st.one_of(st.just(""), names), host, port),
        "XOAUTH2": st.builds(XOAuth2Client, names, token),
    }
    if mechanism == "PLAIN":
        return plain_messages()
    if mechanism.startswith("SCRAM-"):
        bound = binding if mechanism.endswith("-PLUS") else st.none()
        password = st.just(Secret(b"pencil"))
        client = st.builds(ScramClient, st.just(mechanism), prepared, password, nonce, channel_binding=bound)
        return client.map(ScramClient.initial_response)
    return clients[mechanism].map(lambda client: client.initial_response())


# -- what is nearly valid ----------------------------------------------------------------------------------


def hostile_bytes(words: Sequence[bytes] = (), max_words: int = 40) -> st.SearchStrategy[bytes]:
    """Up to `max_words` pieces of nonsense: `words` (those of the grammar that is tested: verbs, delimiters, line
    ends), bytes that parsers stumble over, long runs of one byte, numbers no one counts with, and random bytes."""
    run = st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.sampled_from([2, 80, 600, 5000]))
    pieces = [st.sampled_from(STUMBLING_BLOCKS), st.binary(max_size=20), run]
    if words:
        pieces = [st.sampled_from(list(words)), st.sampled_from(list(words)), *pieces]
    return st.lists(st.one_of(pieces), max_size=max_words).map(b"".join)
