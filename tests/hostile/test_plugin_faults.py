"""Plugins that hang, raise, await what is no operation, or answer nonsense: H67."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from mailfront_io.calling import HOOK_SECONDS
from mailfront_io.ops import Recv, Sleep, Thread
from mailfront_io.pipeline import STORE_SECONDS
from mailfront_io.plugin import Backend, Command, Plugin, Response
from mailfront_io.testing import EOF, VirtualClock
from tests.front import ENVELOPE, Front, codes

FOLLOWED = ENVELOPE + b"DATA\r\n"
BODY = b"x\r\n.\r\n"
GOOD = [b"RSET\r\n", ENVELOPE + b"DATA\r\n", BODY, b"QUIT\r\n"]


class Foreign(Awaitable[None]):
    def __await__(self) -> Generator[Any, Any, None]:
        yield "something of another loop"


async def hangs(*arguments: object) -> None:
    await Sleep(1e9)


async def hangs_in_steps(*arguments: object) -> None:
    while True:
        await Sleep(50)


async def raises_later(*arguments: object) -> None:
    await Sleep(1)
    raise RuntimeError("later")


async def awaits_a_stranger(*arguments: object) -> None:
    await Foreign()


async def awaits_asyncio(*arguments: object) -> None:
    await asyncio.sleep(0)


async def raises_in_a_thread(*arguments: object) -> None:
    def work() -> None:
        raise OSError("disk")

    await Thread(work)


async def swallows_its_deadline(*arguments: object) -> None:
    try:
        await Sleep(1e9)
    except Exception:
        return


def raises(*arguments: object) -> None:
    raise ValueError("now")


FAULTS: dict[str, tuple[Callable[..., object], float, str]] = {
    # what it does, seconds that it may take, what the log says
    "hangs": (hangs, HOOK_SECONDS, "its deadline passed"),
    "hangs in steps": (hangs_in_steps, HOOK_SECONDS, "its deadline passed"),
    "raises": (raises, 0, "ValueError: now"),
    "raises later": (raises_later, 1, "RuntimeError: later"),
    "raises in a thread": (raises_in_a_thread, 0, "OSError: disk"),
    "awaits a stranger": (awaits_a_stranger, 0, "which is no operation"),
    "awaits asyncio": (awaits_asyncio, 0, "which is no operation"),
    "answers a number": (lambda *_: 550, 0, "not int"),
    "answers a string": (lambda *_: "550 no", 0, "not str"),
    "answers a class": (lambda *_: Response, 0, "not type"),
    "answers an operation": (lambda *_: Sleep(1), 0, "not Sleep"),
    "answers 354": (lambda *_: Response(354), 0, "ValueError"),
    "answers 199": (lambda *_: Response(199), 0, "ValueError"),
    "answers a code of no kind": (lambda *_: Response("550"), 0, "TypeError"),  # type: ignore[arg-type]
    "answers a code with a fraction": (lambda *_: Response(250.0), 0, "TypeError"),  # type: ignore[arg-type]
    "takes other arguments": (lambda: None, 0, "TypeError"),
}
HOOKS = ["helo", "sender", "recipient", "data_start", "data_block", "message_end"]


def once(fault: Callable[..., object]) -> Callable[..., object]:
    """`fault` the first time; later nothing."""
    done: list[bool] = []

    def hook(self: object, *arguments: object) -> object:
        if done:
            return None
        done.append(True)
        return fault(*arguments)

    return hook


@pytest.mark.parametrize("who", [Plugin, Backend], ids=["plugin", "backend"])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("name", FAULTS)
def test_h67_a_faulty_hook_is_451_and_the_session_lives(name: str, hook: str, who: type) -> None:
    fault, seconds, logged = FAULTS[name]
    if hook == "message_end" and who is Backend:
        logged = "answers with a Response, None, or a list" if logged.startswith("not ") else logged
        seconds = STORE_SECONDS if name.startswith("hangs") else seconds
    faulty = type("Faulty", (who,), {"name": "faulty", hook: once(fault)})
    front = Front(faulty, "accept") if who is Plugin else Front("accept", backend=faulty)
    played = front.play([FOLLOWED, BODY, *GOOD, EOF], all_read=False)
    output = played.output
    assert b"451 4.3.0 Internal error.\r\n" in output
    assert output.count(b"451 ") == 1
    assert sum(logged in line and "faulty" in line for line in front.log) == 1, front.log
    # then all is well
    assert codes(output)[-1] == 221
    assert codes(output)[-5:-1] == [250, 250, 354, 250]
    assert played.elapsed <= seconds
    assert b"Error" not in output


def test_h67_a_fault_in_connect_takes_the_greetings_place() -> None:
    faulty = type("Faulty", (Plugin,), {"name": "faulty", "connect": raises})
    assert Front(faulty, "accept").say(b"EHLO x\r\n") == b"451 4.3.0 Internal error.\r\n"


def test_h67_a_commit_that_has_begun_is_waited_for() -> None:
    """Its result counts, however late: to drop it would be to lose track of a message."""
    clock = VirtualClock()

    class Slow(Backend):
        async def message_end(self, spool: object) -> Response:
            await Thread(clock.advance, 5000.0, commit=True)
            return Response(250, "2.0.0 at last")

    played = Front("accept", backend=Slow).play([FOLLOWED, BODY, EOF], clock=clock, all_read=False)
    assert played.output.endswith(b"250 2.0.0 at last\r\n")


@pytest.mark.parametrize("name", ["raises", "raises later", "answers a number", "hangs"])
def test_h67_a_fault_in_reset_is_its_answer(name: str) -> None:
    fault, _, logged = FAULTS[name]
    faulty = type("Faulty", (Plugin,), {"name": "faulty", "reset": lambda self: fault()})
    front = Front(faulty, "accept")
    output = front.say(b"EHLO x\r\n", b"RSET\r\n")
    assert b"451 4.3.0 Internal error.\r\n" in output
    assert any(logged in line for line in front.log)
    assert front.log[-1].startswith("bytes in: ")


@pytest.mark.parametrize("hook", ["commands", "mechanisms"])
@pytest.mark.parametrize("fault", [raises, lambda *_: 5, lambda *_: None], ids=["raises", "number", "None"])
def test_h67_a_fault_in_what_is_offered(hook: str, fault: Callable[..., object]) -> None:
    faulty = type("Faulty", (Plugin,), {"name": "faulty", hook: lambda self: fault()})
    front = Front(faulty, "accept")
    assert codes(front.say(b"EHLO x\r\nQUIT\r\n")) == [220, 250, 221]
    assert any("faulty" in line for line in front.log)


@pytest.mark.parametrize("name", FAULTS)
def test_h67_a_faulty_command(name: str) -> None:
    fault, _, _ = FAULTS[name]

    class Faulty(Plugin):
        name = "faulty"

        def commands(self) -> list[Command]:
            return [Command("XFAULT", fault)]  # type: ignore[arg-type]

    output = Front(Faulty, "accept").say(b"EHLO x\r\n", b"XFAULT\r\n", b"QUIT\r\n")
    assert codes(output) == [220, 250, 451, 221]


@pytest.mark.parametrize(
    ("verb", "parameter"), [("X-Y", "optional"), ("", "optional"), ("\xe9", "optional"), ("X", "maybe")]
)
def test_h67_a_command_that_cannot_be_is_left_out(verb: str, parameter: str) -> None:
    class Faulty(Plugin):
        name = "faulty"

        def commands(self) -> list[Command]:
            return [Command(verb, lambda argument: Response(250), parameter)]

    front = Front(Faulty, "accept")
    assert codes(front.say(b"EHLO x\r\nQUIT\r\n")) == [220, 250, 221]
    assert any("ValueError" in line for line in front.log)


def test_h67_a_command_that_is_taken_back_is_unknown_again() -> None:
    class Shy(Plugin):
        asked = 0

        def commands(self) -> list[Command]:
            self.asked += 1
            return [Command("XONCE", lambda argument: Response(250, "2.0.0 once"))] if self.asked == 1 else []

    output = Front(Shy, "accept").say(b"EHLO x\r\nXONCE\r\nEHLO x\r\nXONCE\r\nQUIT\r\n")
    assert codes(output)[-2:] == [500, 221]


def test_h67_a_plugin_that_swallows_its_deadline_has_had_its_time() -> None:
    faulty = type("Faulty", (Plugin,), {"sender": lambda self, path: swallows_its_deadline()})
    played = Front(faulty, "accept").play([ENVELOPE, b"QUIT\r\n", EOF], all_read=False)
    assert codes(played.output) == [220, 250, 250, 250, 221]
    assert played.elapsed == HOOK_SECONDS


def test_h67_a_plugin_may_not_read_for_ever_from_the_peer() -> None:
    async def reads(*arguments: object) -> None:
        await Recv()

    faulty = type("Faulty", (Plugin,), {"name": "faulty", "sender": lambda self, path: reads()})
    played = Front(faulty, "accept").play([ENVELOPE], all_read=False)
    assert b"451 4.3.0 Internal error." in played.output
    assert played.elapsed >= HOOK_SECONDS
