"""Hypothesis strategies for protocol values. For our tests now; they become part of the public test kit
once they have settled.

Each strategy draws *valid* values (what a conforming peer may send); what is invalid is better written down
in a table, or drawn as `st.binary()`.
"""

import re

from hypothesis import strategies as st

from mailfront_proto.smtp.addresses import Address, quote_local_part
from mailfront_proto.smtp.replies import Reply

ATEXT = "abcxyzABC019!#$%&'*+/=?^_`{|}~-"
NON_ASCII = "éßñжю日本𝄞"


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
