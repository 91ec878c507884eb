"""What the name of a maildir's file says of its message (cr.yp.to/proto/maildir.html): order, size, UID and flags.

``1700000003.M12P34.host,S=1520,W=1560:2,FS``: the name proper, which no other message has, and begins with the time;
marks that some deliveries append, here the size on disk and with CRLF line ends; behind the colon, flags.
"""

import os
import re
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import overload

LONGEST_UID = 70
"""Octets of a unique-id (RFC 1939 section 7)."""

_BLOCK = 500
"""Names that are looked at in one go, as one text: where they are alike, that takes a fraction of a look at each."""

_all_usual = re.compile(r"(?:[1-9][0-9]{9}(?![0-9])[^/]*+/)*+\Z").match
_digits = re.compile(r"0*([0-9]+)").match
_usual = re.compile(r"[1-9][0-9]{9}(?![0-9])").match
_seen = re.compile(r"[^:]*:2,[^S]*S").match
_number = re.compile(r"[0-9]{1,18}(?![0-9])").match  # what fits 63 bits


def _as_text(names: Sequence[str]) -> str:
    """The names, each with a slash behind it, which no name has."""
    return "/".join(names) + "/"


def are_usual(names: Sequence[str]) -> bool:
    """Whether all begin with a time of today, ten digits: such names are in order when they are sorted as text."""
    return all(_all_usual(_as_text(names[at : at + _BLOCK])) for at in range(0, len(names), _BLOCK))


def sort(names: list[str], by_number_alone: bool) -> None:
    """Sort by the integer that names begin with, and then as text; `by_number_alone`: those of one integer stay as
    they are."""
    if not by_number_alone:
        names.sort()
    if by_number_alone or not are_usual(names):
        names.sort(key=order)


def order(name: str) -> str:
    """A key by which names sort by the integer that they begin with; those that begin with none sort as text."""
    if _usual(name):
        return name[:10]
    found = _digits(name)
    if found is None:
        return name
    digits = found[1]
    # Ten digits sort as text. Longer numbers are behind all of those, and in front of anything but a digit.
    return digits.rjust(10, "0") if len(digits) <= 10 else f"9:{chr(len(digits))}{digits}"


def split(name: str) -> tuple[str, str]:
    """The name proper, and the marks behind it."""
    base = name.partition(":")[0]
    comma = base.find(",")
    if comma >= 0 and base[comma + 2 : comma + 3] == "=":
        return base[:comma], base[comma + 1 :]
    return base, ""


def size(name: str) -> int:
    """The octets of the message with CRLF line ends (``W=``), else on disk (``S=``); 0: it does not say."""
    octets = 0
    for mark in split(name)[1].split(","):
        if mark[:2] == "W=" or (mark[:2] == "S=" and not octets):
            found = _number(mark, 2)
            octets = int(found[0]) if found else 0
    return octets


def read_numbers(names: Sequence[str]) -> Sequence[int]:
    """The numbers, from 1, of the names that have the flag S, for seen."""
    found: list[Sequence[int]] = []
    for at in range(0, len(names), _BLOCK):
        block = names[at : at + _BLOCK]
        text = _as_text(block)
        if text.count(":2,S/") == len(block) == text.count(":"):  # this flag alone, in each of them
            found.append(range(at + 1, at + len(block) + 1))
        elif "S" in text:
            found.append([number for number, name in enumerate(block, at + 1) if _seen(name)])
    if sum(map(len, found)) == len(names):
        return range(1, len(names) + 1)
    return array("L", chain.from_iterable(found))


def with_seen(name: str) -> str:
    """The name with the flag S; the same, where flags are in a style that we do not know."""
    _, colon, info = name.partition(":")
    if not colon:
        return name + ":2,S"
    return name + "S" if info[:2] == "2," and "S" not in info else name


class UniqueIds(Sequence[bytes]):
    """The unique-ids of messages, made of `names` when they are looked at: they cost no memory.

    `cut`: at 70 octets, as the original has it; else the machine replaces one that is longer by its digest.
    """

    __slots__ = ("_cut", "_names")

    def __init__(self, names: Sequence[str], cut: bool) -> None:
        self._names = names
        self._cut = cut

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            names = self._names[index]
            bases = _as_text(names).replace(":2,S/", "/").replace(":2,/", "/")  # the flags that most have
            if self._cut or ":" in bases or "," in bases:
                return [self._uid(name) for name in names]
            return os.fsencode(bases[:-1]).split(b"/") if names else []
        return self._uid(self._names[index])

    def _uid(self, name: str) -> bytes:
        base = name.partition(":")[0]
        if "," in base:
            base = split(base)[0]
        uid = base.encode() if base.isascii() else os.fsencode(base)
        return uid[:LONGEST_UID] if self._cut else uid
