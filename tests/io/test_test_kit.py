"""The public test kit: `Front`, and the fixtures of the pytest plugin."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from mailfront_io.ops import Sleep
from mailfront_io.plugin import Plugin, Response
from mailfront_io.session import Path as EnvelopePath
from mailfront_io.settings import ConfigurationError
from mailfront_io.testing import EOF, Front, Message, VirtualClock, run_script

MAIL = b"EHLO me\r\nMAIL FROM:<a@b.example>\r\n"
MESSAGE = MAIL + b"RCPT TO:<c@d.example>\r\nDATA\r\n", b"Subject: x\r\n\r\n..hi\r\n.\r\nQUIT\r\n"


class Faulty(Plugin):
    """Has a fault."""

    name = "faulty"

    def sender(self, path: EnvelopePath) -> Response:
        raise RuntimeError("a fault")


class Slow(Plugin):
    """Takes its time."""

    name = "slow"

    async def sender(self, path: EnvelopePath) -> Response:
        await Sleep(30)
        return Response(250, f"2.1.0 {self.session.clock.monotonic():.0f}")


def test_a_front_keeps_messages_and_log() -> None:
    front = Front("accept")
    front.play([*MESSAGE, EOF])
    front.say(*MESSAGE)
    assert front.messages == [Message("a@b.example", ["c@d.example"], b"Subject: x\n\n.hi\n")] * 2
    assert front.log[0] == "MAIL FROM:<a@b.example>" and front.faults == []


def test_what_a_plugin_has_made_of_a_spooled_message_is_kept() -> None:
    class Rewrites(Plugin):
        spools = True

        def message_end(self, spool: object) -> None:
            spool.replace(iter([b"another\n"]))  # type: ignore[attr-defined]

    front = Front("accept", Rewrites)
    front.say(*MESSAGE)
    assert front.messages[0].text == b"another\n"


def test_plugins_are_classes_or_elements_of_a_list() -> None:
    front = Front(Faulty, f"{__name__}:Faulty,failure=pass", "accept")
    assert front.say(MAIL).endswith(b"451 4.3.0 Internal error.\r\n")
    assert len(front.faults) == 1 and "a fault" in front.faults[0]


def test_settings_are_checked_as_those_of_a_program() -> None:
    with pytest.raises(ConfigurationError, match="DATABYTES"):
        Front("counters", settings={"DATABYTES": "many"})


@pytest.mark.parametrize("protocol", ["smtp", "lmtp", "qmtp", "qmqp"])
def test_every_protocol(protocol: str) -> None:
    said = {
        "smtp": MAIL,
        "lmtp": b"LHLO me\r\n",
        "qmtp": b"3:\na\n,3:a@b,6:3:x@y,,",
        "qmqp": b"17:2:a\n,3:a@b,3:c@d,,",
    }[protocol]
    assert Front("accept", protocol=protocol).say(said)


def test_other_backends() -> None:
    assert Front("accept", backend="echo").say(MAIL).endswith(b"250 2.1.0 Sender='a@b.example'.\r\n")


def test_a_front_is_a_session_factory() -> None:
    assert run_script(Front("accept").session, [b"QUIT\r\n", EOF], all_read=False).result == 0


def test_the_fixtures(mailfront: Callable[..., Front], virtual_clock: VirtualClock) -> None:
    front = mailfront(Slow, "accept")
    played = front.play([MAIL, EOF], clock=virtual_clock)
    assert played.elapsed == 30
    assert virtual_clock.monotonic() >= 30


def test_faults_that_are_asked_for(mailfront: Callable[..., Front]) -> None:
    assert mailfront(Faulty, faults=True).say(MAIL).endswith(b"451 4.3.0 Internal error.\r\n")


def test_the_plugin_is_found_by_pytest() -> None:
    assert [point.value for point in entry_points(group="pytest11", name="mailfront")] == ["mailfront_io.pytest_plugin"]


def test_a_fault_that_is_not_asked_for_fails_the_test(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from mailfront_io.plugin import Plugin\n"
        "class Faulty(Plugin):\n"
        "    name = 'faulty'\n"
        "    def sender(self, path):\n"
        "        raise RuntimeError('a fault')\n"
        "def test_it(mailfront):\n"
        "    assert mailfront(Faulty).say(b'EHLO x\\r\\nMAIL FROM:<a@b.example>\\r\\n').endswith(b'error.\\r\\n')\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, timeout=90, env=environment,
    )  # fmt: skip
    assert run.returncode == 1
    assert "a hook has failed:" in run.stdout and "plugin faulty: RuntimeError: a fault" in run.stdout
    assert "1 passed, 1 error" in run.stdout
