r"""Regular expressions that are compiled when they are first used.

A program that is started for one connection imports modules with fifty of them and uses a few; to compile one takes
0.1 ms. So modules that such programs import have theirs from here::

    _CONTROL: Final = compile_later(rb"[\x00-\x1f\x7f]")
    ...
    if _CONTROL.search(line):
"""

import re
from typing import TYPE_CHECKING, Any


class _Later:
    """Stands for a compiled pattern: what is asked of it for the first time is asked of that, and kept. From then on it
    costs what any attribute costs."""

    def __init__(self, pattern: Any, flags: int = 0) -> None:
        self._source = pattern, flags

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the interpreter looks for is not there
            raise AttributeError(name)
        found = getattr(re.compile(*self._source), name)
        setattr(self, name, found)
        return found


if TYPE_CHECKING:
    compile_later = re.compile
else:
    compile_later = _Later
    """As `re.compile`."""
