"""What a server offers: the lines of its answer to CAPA (RFC 2449 section 5)."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

NOTHING: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
"""Nothing is known of the server."""

# capability = capa-tag *( SP param ), RFC 2449 section 3; ASCII only
_LINE = re.compile(r"([!-~]+)((?: +[!-~]+)*) *\Z", re.ASCII)


def parse_capabilities(lines: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """From the tag, in upper case, to its parameters as they came; of a tag given twice the parameters of both lines,
    each once. Lines that follow no grammar are left out: a capability that cannot be understood is not offered."""
    offered: dict[str, dict[str, None]] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is not None:
            offered.setdefault(match[1].upper(), {}).update(dict.fromkeys(match[2].split()))
    return MappingProxyType({tag: tuple(parameters) for tag, parameters in offered.items()})


def print_capabilities(capabilities: Mapping[str, Iterable[str]]) -> list[str]:
    """The lines, as a server sends them."""
    return [" ".join([tag, *parameters]) for tag, parameters in capabilities.items()]
