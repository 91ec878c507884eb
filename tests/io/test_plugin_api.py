"""What a plugin list says of a place, what comes of a check that fails, and what connections share."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mailfront_io.calling import HOOK_SECONDS
from mailfront_io.ops import Sleep
from mailfront_io.plugin import CheckFailed, Command, Place, Plugin, Response
from mailfront_io.registry import LONGEST_DEADLINE, CannotLoad, load_plugin, parse_place
from mailfront_io.service import Service, service_from_line
from mailfront_io.session import Path
from mailfront_io.settings import ConfigurationError
from mailfront_io.testing import EOF, run_script
from tests.front import ENVELOPE, Front, codes

BODY = b"DATA\r\nx\r\n.\r\nQUIT\r\n"
NO_SCANNER = Response(451, "4.3.0 Could not scan")


class Fails(Plugin):
    """A check that cannot be made."""

    name = "fails"

    def sender(self, path: Path) -> Response | None:
        raise CheckFailed(NO_SCANNER, "nobody there")

    async def recipient(self, path: Path) -> Response | None:
        await Sleep(1)
        raise CheckFailed(NO_SCANNER)


class Hangs(Plugin):
    """Waits for ever."""

    name = "hangs"

    async def sender(self, path: Path) -> Response | None:
        await Sleep(1e9)
        return None


class Crashes(Plugin):
    """Has a fault in every hook."""

    name = "crashes"


def crash(self: object, *arguments: object) -> Response:
    raise RuntimeError("secret")


HOOKS = ("helo", "sender", "recipient", "data_start", "data_block", "message_end", "reset", "connect", "disconnect")
for hook in HOOKS:
    setattr(Crashes, hook, crash)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ([], Place()),
        (["deadline=20"], Place(20)),
        (["failure=pass"], Place(None, True)),
        (["failure=defer"], Place()),
        (["failure=pass", "deadline=1"], Place(1, True)),
        (["deadline=600"], Place(LONGEST_DEADLINE)),
    ],
)
def test_what_a_list_may_say_of_a_place(options: list[str], place: Place) -> None:
    assert parse_place(options) == place


@pytest.mark.parametrize(
    "options",
    [
        "deadline=0", "deadline=601", "deadline=", "deadline", "deadline=+5", "deadline=1e3", "deadline=٣",
        "deadline=-1", "failure=", "failure=open", "failure", "", "x=1", "failure=pass,failure=defer",
        "deadline=5,deadline=5", "failure=pass,", "deadline=5,x",
    ],
)  # fmt: skip
def test_what_it_may_not_say_is_told_to_the_client(options: str) -> None:
    with pytest.raises(CannotLoad, match="write NAME,deadline=SECONDS,failure=pass with 1 to 600 seconds"):
        load_plugin(f"accept,{options}")
    service = service_from_line(["smtp", "echo", f"accept,{options}"], {}, print)
    assert service.load_error is not None


def placed(kind: type[Plugin], place: Place) -> type[Plugin]:
    return type(kind.__name__, (kind,), {"place": place})


def test_a_listed_place_is_the_plugins() -> None:
    kind = load_plugin("mailfront_io.plugins.accept:Accept,deadline=20,failure=pass")
    assert kind.place == Place(20, True)
    assert kind.name == "accept" and kind.__doc__ == load_plugin("accept").__doc__
    assert load_plugin("accept").place == Place()


def test_a_check_that_fails_defers() -> None:
    front = Front(Fails, "accept")
    assert b"451 4.3.0 Could not scan\r\n" in front.say(ENVELOPE)
    assert sum(line.endswith(": plugin fails: nobody there") for line in front.log) == 1


def test_a_check_that_fails_passes_where_the_list_says_so() -> None:
    front = Front(placed(Fails, Place(None, True)), "accept")
    assert codes(front.say(ENVELOPE, BODY)) == [220, 250, 250, 250, 354, 250, 221]
    for what in ("nobody there", "4.3.0 Could not scan"):
        assert any(re.fullmatch(f"Error [0-9a-f]{{8}}: plugin fails: {what}, passed", line) for line in front.log)
    assert len(front.messages) == 1


def test_a_failed_check_without_a_reason_is_in_the_log_as_its_reply_alone() -> None:
    class Silent(Plugin):
        name = "silent"

        def sender(self, path: Path) -> Response:
            raise CheckFailed(NO_SCANNER)

    front = Front(Silent, "accept")
    front.say(ENVELOPE)
    assert [line for line in front.log if "scan" in line] == ["451 4.3.0 Could not scan"]


def test_a_failed_check_is_answered_with_an_error() -> None:
    with pytest.raises(ValueError, match="answered with an error"):
        CheckFailed(Response(250))


@pytest.mark.parametrize(("place", "seconds"), [(Place(), HOOK_SECONDS), (Place(7), 7), (Place(600), 600)])
def test_the_place_says_when_a_hook_hangs(place: Place, seconds: float) -> None:
    front = Front(placed(Hangs, place), "accept", env={"TIMEOUT": "3600"})
    played = front.play([b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nQUIT\r\n", EOF])
    assert codes(played.output) == [220, 250, 451, 221]
    assert played.elapsed == seconds


def test_a_hook_that_hangs_passes_where_the_list_says_so() -> None:
    front = Front(placed(Hangs, Place(7, True)), "accept")
    played = front.play([ENVELOPE, BODY, EOF], all_read=False)
    assert codes(played.output) == [220, 250, 250, 250, 354, 250, 221]
    assert played.elapsed == 7
    assert any("plugin hangs: its deadline passed, passed" in line for line in front.log)


def test_a_plugin_full_of_faults_that_may_fail_costs_nothing_but_log_lines() -> None:
    front = Front(placed(Crashes, Place(None, True)), "accept")
    assert codes(front.say(ENVELOPE, BODY)) == [220, 250, 250, 250, 354, 250, 221]
    assert sum("plugin crashes: RuntimeError: secret, passed" in line for line in front.log) >= len(HOOKS)


def test_failing_accepts_nobody() -> None:
    """No opinion is no acceptance: what nobody else accepts is refused."""
    front = Front(placed(Fails, Place(None, True)))
    assert codes(front.say(ENVELOPE)) == [220, 250, 550, 503]


def test_a_command_that_fails_has_an_answer_all_the_same() -> None:
    class Commands(Plugin):
        place = Place(None, True)

        def commands(self) -> list[Command]:
            return [Command("XFAIL", self.fail)]

        def fail(self, argument: str) -> Response:
            raise CheckFailed(NO_SCANNER)

    assert codes(Front(Commands, "accept").say(b"XFAIL\r\nQUIT\r\n"))[-2:] == [451, 221]


class Shares(Plugin):
    """Counts its connections in what all of them share."""

    name = "shares"
    configured = 0

    @classmethod
    def configure(cls, environment: Mapping[str, str], log: Callable[[str], None]) -> list[str]:
        if "SHARED" not in environment:
            raise ValueError("$SHARED is not set: set it to anything")
        Shares.configured += 1
        return [environment["SHARED"]]

    def connect(self) -> None:
        self.shared.append("connected")


def test_what_connections_share_is_made_once() -> None:
    before = Shares.configured
    service = Service("smtp", "discard", [f"{__name__}:Shares"], {"SHARED": "yes"}, print)
    kind = service._plugins[0]
    assert (kind.name, kind.__doc__, kind.__name__) == ("shares", Shares.__doc__, "Shares")
    for _ in range(3):
        run_script(service.session, [b"QUIT\r\n"])
    assert Shares.configured == before + 1
    assert kind.shared == ["yes", "connected", "connected", "connected"]
    assert Shares.shared is None
    other = Service("smtp", "discard", [f"{__name__}:Shares,failure=pass"], {"SHARED": "no"}, print)
    assert other._plugins[0].shared == ["no"] and other._plugins[0].place == Place(None, True)


def test_a_plugin_that_cannot_be_configured_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"\$SHARED is not set: set it to anything"):
        Service("smtp", "discard", [f"{__name__}:Shares"], {}, print)


def test_what_works_only_in_one_shot_programs_is_refused_by_servers() -> None:
    class Odd(Plugin):
        name = "odd"
        one_shot = True

    service = Service("smtp", "discard", [], {}, print)
    service._plugins = [Odd]
    with pytest.raises(ConfigurationError, match="odd works only in programs that tcpserver"):
        service.check_required()


@pytest.mark.parametrize("text", ["a\r\n250 b", "a\nb\0c", "\x1b[2J", "\x7f\udc0a", "a\rb", "\x0b\x0c\x1c"])
def test_h60_no_text_of_a_response_has_control_bytes(text: str) -> None:
    def answer(self: object, path: Any) -> Response:
        raise CheckFailed(Response(451, "4.3.0 " + text))

    kind = type("Says", (Plugin,), {"name": "says", "sender": answer})
    output = Front(kind).say(b"HELO x\r\nMAIL FROM:<a@b.example>\r\nQUIT\r\n")
    _greeting, _helo, *refusals, _bye = output.removesuffix(b"\r\n").split(b"\r\n")
    assert all(line.startswith((b"451-4.3.0 ", b"451 4.3.0 ")) for line in refusals)
    assert len(refusals) == 1 + text.count("\n")
    assert not any(byte < 32 or byte == 127 for line in refusals for byte in line)
