"""The test kit as fixtures for pytest, which finds this module by itself where mailfront is installed."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mailfront_io.testing import Front, VirtualClock
    from mailfront_io.testing_server import MailServer, MemoryMailServer


@pytest.fixture
def mailfront() -> "Iterator[Callable[..., Front]]":
    """Makes front ends with the plugins of a test: ``mailfront(MyPlugin, "accept", settings={…})``; the arguments are
    those of `mailfront_io.testing.Front`.

    A hook that raises, hangs or answers nonsense is a 451 to the client, which a test may take for the plugin's own. So
    the test fails that has one, unless it asks for it with ``faults=True``, as one of a check that cannot be made does.
    """
    from mailfront_io.testing import Front

    strict: list[Front] = []

    def make(*plugins: Any, faults: bool = False, **options: Any) -> Front:
        front = Front(*plugins, **options)
        if not faults:
            strict.append(front)
        return front

    yield make
    found = [line for front in strict for line in front.faults]
    if found:
        pytest.fail("\n".join(["a hook has failed:", *found]), pytrace=False)


@pytest.fixture
def virtual_clock() -> "VirtualClock":
    """A clock that stands still but for scripts and `advance`: ``front.play(script, clock=virtual_clock)``."""
    from mailfront_io.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def mail_server() -> "Iterator[MailServer]":
    """A real SMTP server on a free port, which keeps what it gets: `mailfront_io.testing_server.MailServer`."""
    from mailfront_io.testing_server import MailServer

    with MailServer() as server:
        yield server


@pytest.fixture
def memory_mail_server() -> "Iterator[MemoryMailServer]":
    """The same without ports or threads: ``memory_mail_server.smtp()`` is an `smtplib.SMTP`."""
    from mailfront_io.testing_server import MemoryMailServer

    with MemoryMailServer() as server:
        yield server
