"""What a server offers: the capability lines of its EHLO or LHLO reply (RFC 5321 section 4.1.1.1).

Strategy: a read-only mapping from the keyword, in upper case, to its parameters as they came. Lines that
follow no grammar are left out: a capability that cannot be understood is not offered.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

# ehlo-line = ehlo-keyword *( SP ehlo-param ). Some servers still write "AUTH=LOGIN" (an early draft of
# RFC 2554), so "=" ends a keyword too. ASCII only: "\u017f".upper() is "S", and must not make a STARTTLS.
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ =]+([!-~]+(?: +[!-~]+)*))?[ =]*\Z", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,20}\Z", re.ASCII)  # RFC 1870 section 3
_LIMIT = re.compile(r"([A-Za-z][A-Za-z0-9-]*)=([1-9][0-9]{0,5})\Z", re.ASCII)  # RFC 9422 sections 2 and 3


class Capabilities(Mapping[str, tuple[str, ...]]):
    """The capabilities of a server. Keywords are looked up without case: ``"starttls" in capabilities``.

    ``capabilities["SIZE"]`` is the tuple of the parameters, ``("10485760",)`` for instance; a keyword that
    is not offered is a `KeyError`. A keyword given twice has the parameters of both lines, each once.
    """

    __slots__ = ("_offered",)

    def __init__(self, offered: Mapping[str, Iterable[str]] | None = None) -> None:
        self._offered: dict[str, tuple[str, ...]] = {}
        for keyword, parameters in (offered or {}).items():
            self._offered[keyword.upper()] = tuple(parameters)

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "Capabilities":
        """Read the lines of the reply behind its first one (which names the server), without codes."""
        offered: dict[str, dict[str, None]] = {}
        for line in lines:
            match = _LINE.match(line)
            if match is not None:
                parameters = offered.setdefault(match[1].upper(), {})
                parameters.update(dict.fromkeys((match[2] or "").split()))
        return cls(offered)

    def lines(self) -> list[str]:
        """The capability lines, as a server sends them."""
        return [" ".join([keyword, *parameters]) for keyword, parameters in self._offered.items()]

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms offered (RFC 4954 section 3), in upper case and in order."""
        return tuple(mechanism.upper() for mechanism in self._offered.get("AUTH", ()))

    @property
    def size(self) -> int | None:
        """The largest message taken, in octets (RFC 1870 section 3); None: no fixed limit is known."""
        for parameter in self._offered.get("SIZE", ())[:1]:
            if _SIZE.match(parameter):
                return int(parameter) or None  # "0" means no fixed limit
        return None

    def limit(self, name: str) -> int | None:
        """The number that the server sets for ``MAILMAX``, ``RCPTMAX`` or ``RCPTDOMAINMAX`` (RFC 9422 section 3):
        transactions in a session, recipients in a transaction, domains of recipients in a session. None: no
        limit is known. A limit that is no number, or 0, is none."""
        for parameter in self._offered.get("LIMITS", ()):
            match = _LIMIT.match(parameter)
            if match is not None and match[1].upper() == name:
                return int(match[2])
        return None

    def __getitem__(self, keyword: str) -> tuple[str, ...]:
        if not keyword.isascii():
            raise KeyError(keyword)
        return self._offered[keyword.upper()]

    def __contains__(self, keyword: object) -> bool:
        return isinstance(keyword, str) and keyword.isascii() and keyword.upper() in self._offered

    def __iter__(self) -> Iterator[str]:
        return iter(self._offered)

    def __len__(self) -> int:
        return len(self._offered)

    def __repr__(self) -> str:
        return f"Capabilities({self._offered!r})"
