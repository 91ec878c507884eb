"""The programs that are not ours: where they are, and what is said when they are not there."""

import os
import shutil

import pytest

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


def program(name: str) -> str:
    """The path of a program that ``make peers`` installs; skips the test where it is missing."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        pytest.skip(f"{name} is not installed (make peers installs it).")
    return path
