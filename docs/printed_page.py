"""What every script does that prints one page of the manual."""

import sys
from collections.abc import Callable
from pathlib import Path


def main(path: Path, page: Callable[[], str]) -> None:
    """Write what `page` gives to `path`; with ``--print`` among the arguments, print it."""
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(page())
    else:
        path.write_text(page(), encoding="utf-8")
