"""The rules of the hook chain: order, errors, final acceptance, kept responses, resets, the message's way."""

from collections.abc import Callable
from typing import Any

import pytest

from mailfront_io.calling import HOOK_SECONDS
from mailfront_io.ops import Sleep
from mailfront_io.pipeline import fold
from mailfront_io.plugin import ACCEPT, Backend, Place, Plugin, Response
from mailfront_io.session import Path, Session
from mailfront_io.spool import Spool
from mailfront_io.testing import EOF
from tests.front import ENVELOPE, Front, codes

OK = Response(250, "2.0.0 mine")
FINAL = Response(250, "2.0.0 final", final=True)
NO = Response(550, "5.0.0 no")
LATER = Response(451, "4.0.0 later")
DATA = ENVELOPE + b"DATA\r\n"
BODY = b"line\r\n.\r\n"
HELO = b"EHLO x\r\n"
MAIL = b"MAIL FROM:<a@example.net>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"


class Calls(list[str]):
    """What was called, as ``name.hook``."""

    def hook(self, name: str, hook: str, answer: Any) -> Callable[..., Any]:
        def call(hooks: Any, *arguments: Any) -> Any:
            self.append(f"{name}.{hook}")
            return answer(hooks, *arguments) if callable(answer) else answer

        return call

    def plugin(self, name: str, **answers: Any) -> type[Plugin]:
        """A plugin with these hooks, each with its answer, or a function that makes it."""
        return type(name, (Plugin,), {"name": name, **{h: self.hook(name, h, a) for h, a in answers.items()}})

    def backend(self, spools: bool = False, **answers: Any) -> type[Backend]:
        """A backend likewise."""
        hooks = {h: self.hook("backend", h, a) for h, a in answers.items()}
        return type("Recorded", (Backend,), {"name": "backend", "spools": spools, **hooks})

    def of(self, hook: str) -> list[str]:
        """Who was called for `hook`, in order."""
        return [call.partition(".")[0] for call in self if call.endswith("." + hook)]


@pytest.fixture
def calls() -> Calls:
    return Calls()


def last_line(output: bytes) -> str:
    return output.decode("utf-8", "surrogateescape").rstrip("\r\n").rpartition("\r\n")[2]


# -- sender and recipient --------------------------------------------------------------------------------

CHAINS: list[tuple[list[Any], Any, str, list[str]]] = [
    # the answers of plugins a, b, c; the backend's; the reply; who was asked
    ([None, None, None], None, "550 5.1.0 Mail system is not configured to accept that sender", ["a", "b", "c"]),
    ([None, None, None], OK, "550 5.1.0 Mail system is not configured to accept that sender", ["a", "b", "c"]),
    ([ACCEPT, None, None], None, "250 2.1.0 Sender accepted.", ["a", "b", "c", "backend"]),
    ([OK, Response(250, "2.0.0 second"), None], None, "250 2.0.0 mine", ["a", "b", "c", "backend"]),
    ([None, OK, ACCEPT], None, "250 2.0.0 mine", ["a", "b", "c", "backend"]),
    ([ACCEPT, OK, None], None, "250 2.1.0 Sender accepted.", ["a", "b", "c", "backend"]),
    ([NO, OK, OK], OK, "550 5.0.0 no", ["a"]),
    ([OK, NO, OK], OK, "550 5.0.0 no", ["a", "b"]),
    ([OK, OK, LATER], OK, "451 4.0.0 later", ["a", "b", "c"]),
    ([FINAL, NO, NO], None, "250 2.0.0 final", ["a", "backend"]),
    ([OK, FINAL, NO], None, "250 2.0.0 final", ["a", "b", "backend"]),
    ([OK, None, None], Response(250, "2.0.0 stored"), "250 2.0.0 mine", ["a", "b", "c", "backend"]),
    ([ACCEPT, None, None], Response(250, "2.0.0 stored"), "250 2.0.0 stored", ["a", "b", "c", "backend"]),
    ([ACCEPT, None, None], Response(250), "250 2.1.0 Sender accepted.", ["a", "b", "c", "backend"]),
    ([OK, None, None], NO, "550 5.0.0 no", ["a", "b", "c", "backend"]),
    ([FINAL, NO, NO], LATER, "451 4.0.0 later", ["a", "backend"]),
    ([Response(251, "2.0.0 forwarded"), None, None], None, "251 2.0.0 forwarded", ["a", "b", "c", "backend"]),
]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize(("answers", "stored", "reply", "asked"), CHAINS)
def test_the_chain_of_a_sender(
    calls: Calls, answers: list[Any], stored: Any, reply: str, asked: list[str], asynchronous: bool
) -> None:
    def made(answer: Any) -> Any:
        async def later(hooks: Any, path: Path) -> Any:
            await Sleep(0.1)
            return answer

        return later if asynchronous else answer

    plugins = [calls.plugin(name, sender=made(a)) for name, a in zip("abc", answers, strict=True)]
    front = Front(*plugins, backend=calls.backend(sender=made(stored)))
    assert last_line(front.say(HELO, MAIL)) == reply
    assert calls.of("sender") == asked


@pytest.mark.parametrize("hook", ["sender", "reset"])
def test_a_hook_that_is_no_method_is_called_once_for_each_time_it_is_listed(calls: Calls, hook: str) -> None:
    async def later(*arguments: Any) -> None:
        calls.append("later")

    def sometimes(*arguments: Any) -> Any:
        calls.append("hook")
        return later() if len(calls) == 2 else None

    twice = type("Twice", (Plugin,), {"name": "twice", hook: staticmethod(sometimes)})
    output = Front(twice, twice, twice, "accept").play([HELO + MAIL, EOF]).output
    assert codes(output)[-1] == 250
    assert calls[:4] == ["hook", "hook", "later", "hook"]
    assert calls.count("hook") == (3 if hook == "sender" else 9)  # reset: at EHLO, MAIL and the end


def test_the_words_of_a_recipient(calls: Calls) -> None:
    nobody = Front("accept-sender").say(ENVELOPE)
    assert last_line(nobody) == "550 5.1.0 Mail system is not configured to accept that recipient"
    assert last_line(Front("accept").say(ENVELOPE)) == "250 2.1.5 Recipient accepted."
    own = Front("accept", backend=calls.backend(recipient=Response(250, "2.1.5 known"))).say(ENVELOPE)
    assert last_line(own) == "250 2.1.5 known"


def test_a_changed_address_is_what_those_behind_see(calls: Calls) -> None:
    seen: list[str] = []

    def append(hooks: Any, path: Path) -> Response:
        seen.append(path.address)
        path.address += ".x"
        return ACCEPT

    front = Front(
        calls.plugin("a", sender=append, recipient=append), calls.plugin("b", sender=append, recipient=append)
    )
    front.say(DATA, BODY)
    assert seen == ["a@example.net", "a@example.net.x", "b@example.org", "b@example.org.x"]
    assert [(s, r) for s, r, _ in front.messages] == [("a@example.net.x.x", ["b@example.org.x.x"])]
    assert "MAIL FROM:<a@example.net>" in front.log  # as it was sent


def test_a_refused_recipient_is_none(calls: Calls) -> None:
    def only_b(hooks: Any, path: Path) -> Response:
        return ACCEPT if path.address.startswith("b@") else NO

    front = Front("accept-sender", calls.plugin("a", recipient=only_b))
    front.say(HELO + MAIL + b"RCPT TO:<x@example.org>\r\n" + RCPT + b"RCPT TO:<y@example.org>\r\nDATA\r\n", BODY)
    assert front.messages == [("a@example.net", ["b@example.org"], b"line\n")]


# -- connect and helo ------------------------------------------------------------------------------------


def test_an_error_of_connect_takes_the_greetings_place(calls: Calls) -> None:
    front = Front(calls.plugin("a", connect=OK), calls.plugin("b", connect=LATER), calls.plugin("c", connect=NO))
    played = front.play([HELO, EOF], all_read=False)
    assert played.output == b"451 4.0.0 later\r\n"
    assert played.result == 1
    assert calls == ["a.connect", "b.connect"]
    assert front.log[0] == "451 4.0.0 later"
    assert [line for line in front.log if line.startswith("451")] == ["451 4.0.0 later"]


def test_what_connect_and_helo_accept_with_is_not_shown(calls: Calls) -> None:
    front = Front(calls.plugin("a", connect=OK, helo=OK), "accept", backend=calls.backend(connect=OK, helo=OK))
    assert b"mine" not in front.say(HELO)
    assert calls.of("connect") == calls.of("helo") == ["a", "backend"]


def test_an_error_of_helo_is_its_answer_and_nothing_was_said(calls: Calls) -> None:
    def unless_good(hooks: Any, host: str, capabilities: list[str]) -> Response | None:
        return None if host == "good" else NO

    front = Front(calls.plugin("a", helo=unless_good), "accept", "add-received")
    output = front.say(
        b"EHLO bad\r\nMAIL FROM:<a@b.example>\r\nEHLO good\r\nEHLO bad\r\n" + MAIL + RCPT + b"DATA\r\n", BODY
    )
    assert codes(output) == [220, 550, 503, 250, 550, 250, 250, 354, 250]
    assert front.messages[0][2].startswith(b"Received: from good (")


def test_capabilities_stand_in_the_order_of_the_plugins(calls: Calls) -> None:
    def offers(line: str) -> Callable[..., None]:
        return lambda hooks, host, capabilities: capabilities.append(line)

    front = Front(calls.plugin("a", helo=offers("X-ONE")), calls.plugin("b", helo=offers("X-TWO")), "accept")
    lines = front.say(HELO).split(b"\r\n")[2:]
    assert lines[:2] == [b"250-X-ONE", b"250-X-TWO"]


def test_helo_domain_is_set_behind_the_hooks_and_a_plugins_own_stays(calls: Calls) -> None:
    seen: list[tuple[str, str | None]] = []

    def look(hooks: Any, host: str, capabilities: list[str]) -> None:
        seen.append((host, hooks.session.strings.get("helo_domain")))

    front = Front(calls.plugin("a", helo=look))
    front.say(b"EHLO one\r\nEHLO two\r\nHELO three\r\n")
    assert seen == [("one", None), ("two", "one"), ("three", "two")]  # the first does not stick

    def own(hooks: Any, host: str, capabilities: list[str]) -> None:
        hooks.session.strings["helo_domain"] = "ours"

    seen.clear()
    Front(calls.plugin("b", helo=look), calls.plugin("c", helo=own)).say(b"EHLO one\r\nEHLO two\r\n")
    assert seen[1] == ("two", "ours")


# -- the message -----------------------------------------------------------------------------------------


def test_the_order_of_a_message(calls: Calls) -> None:
    hooks: dict[str, Any] = {"data_start": None, "data_block": None, "message_end": None}
    front = Front("accept", calls.plugin("a", **hooks), calls.plugin("b", **hooks), backend=calls.backend(**hooks))
    output = front.say(DATA, BODY)
    assert calls == [
        "backend.data_start", "a.data_start", "b.data_start", "a.data_block", "b.data_block", "backend.data_block",
        "a.message_end", "b.message_end", "backend.message_end",
    ]  # fmt: skip
    assert last_line(output) == "250 2.6.0 Message accepted."


def test_what_plugins_accept_a_message_with_is_not_shown(calls: Calls) -> None:
    plugin = calls.plugin("a", data_start=OK, data_block=OK, message_end=OK)
    output = Front("accept", plugin, backend=calls.backend(message_end=None)).say(DATA, BODY)
    assert b"mine" not in output
    assert last_line(output) == "250 2.6.0 Message accepted."
    output = Front("accept", plugin, backend=calls.backend(message_end=Response(250, "2.0.0 stored"))).say(DATA, BODY)
    assert last_line(output) == "250 2.0.0 stored"


@pytest.mark.parametrize("who", ["plugin", "backend"])
@pytest.mark.parametrize("hook", ["data_start", "data_block", "message_end"])
def test_an_error_from_data_start_on_resets(calls: Calls, who: str, hook: str) -> None:
    answers = {hook: NO, "reset": None}
    front = Front(
        "accept",
        calls.plugin("a", **(answers if who == "plugin" else {"reset": None})),
        backend=calls.backend(**(answers if who == "backend" else {"reset": None})),
    )
    before = front.say(HELO + MAIL + RCPT)
    resets = len(calls.of("reset"))
    assert before
    calls.clear()
    output = front.say(DATA, BODY, b"NOOP\r\n")
    assert (550 in codes(output)) and codes(output)[-1] == 250
    assert len(calls.of("reset")) == resets + 2  # the backend's and the plugin's
    assert calls[-2:] == ["backend.reset", "a.reset"]
    assert (354 in codes(output)) == (hook != "data_start")
    assert front.messages == []


def test_the_first_error_of_a_block_is_the_answer_and_the_rest_is_thrown_away(calls: Calls) -> None:
    answers = iter([None, NO, LATER, OK])
    backend = calls.backend(data_block=None, message_end=None, reset=None)
    front = Front("accept", calls.plugin("a", data_block=lambda h, d: next(answers)), backend=backend)
    output = front.say(DATA, b"one\r\n", b"two\r\n", b"three\r\n", b"four\r\n", BODY)
    assert last_line(output) == "550 5.0.0 no"
    assert calls.of("data_block") == ["a", "backend", "a"]
    assert calls.of("message_end") == []


def test_a_refused_sender_or_recipient_resets_nothing(calls: Calls) -> None:
    plugin = calls.plugin("a", reset=None, sender=ACCEPT, recipient=NO)
    Front(plugin).play([HELO, MAIL, RCPT, RCPT, EOF])
    assert calls == ["a.reset", "a.reset", "a.sender", "a.recipient", "a.recipient", "a.reset"]
    #                HELO       MAIL                                                at the end


def test_where_resets_are(calls: Calls) -> None:
    front = Front("accept", calls.plugin("a", reset=None), backend=calls.backend(reset=None))
    for said, times in (
        (b"", 1),
        (HELO, 2),
        (HELO + b"RSET\r\n", 3),
        (HELO + MAIL, 3),
        (HELO + MAIL + MAIL, 4),
        (DATA, 3),
    ):
        calls.clear()
        front.play([said, EOF] if said else [EOF])
        assert calls == ["backend.reset", "a.reset"] * times, said


def test_the_end_in_the_middle_of_a_message_resets_and_delivers_nothing(calls: Calls) -> None:
    backend = calls.backend(message_end=None, reset=None, disconnect=None, data_block=None)
    front = Front("accept", calls.plugin("a", reset=None, disconnect=None), backend=backend)
    played = front.play([DATA, b"half", EOF])
    assert calls.of("message_end") == []
    assert calls[-4:] == ["backend.reset", "a.reset", "a.disconnect", "backend.disconnect"]
    assert played.result == 1 and "Connection dropped" in front.log


@pytest.mark.parametrize("said", [MAIL, b"RSET\r\n"])
def test_an_error_of_reset_is_the_reply_and_ends_the_session(calls: Calls, said: bytes) -> None:
    broken = [False]
    plugin = calls.plugin(
        "a", reset=lambda h: LATER if broken[0] else None, helo=lambda *_: broken.__setitem__(0, True)
    )
    played = Front(plugin, "accept", backend=calls.backend(sender=None)).play(
        [HELO + said, b"NOOP\r\n"], all_read=False
    )
    assert last_line(played.output) == "451 4.0.0 later"
    assert played.result == 1
    assert calls.of("sender") == []


def test_every_reset_is_called_whatever_the_others_say(calls: Calls) -> None:
    plugins = [calls.plugin(name, reset=answer) for name, answer in (("a", NO), ("b", FINAL), ("c", None))]
    output = Front(*plugins, backend=calls.backend(reset=LATER)).say(HELO)
    assert calls[:4] == ["backend.reset", "a.reset", "b.reset", "c.reset"]
    assert last_line(output) == "451 4.0.0 later"


# -- added lines and the spool ---------------------------------------------------------------------------


def adding(*lines: bytes) -> Callable[..., None]:
    def add(hooks: Any, spool: Spool | None) -> None:
        for line in lines:
            hooks.session.add_lines(line)

    return add


def test_added_lines_go_in_front_and_past_the_block_hooks(calls: Calls) -> None:
    seen: list[bytes] = []
    block = calls.plugin("b", data_block=lambda hooks, data: seen.append(data))
    front = Front("accept", calls.plugin("a", data_start=adding(b"X-One: 1\n", b"X-Two: 2\n")), block)
    front.say(DATA, BODY)
    assert front.messages[0][2] == b"X-One: 1\nX-Two: 2\nline\n"
    assert seen == [b"line\n"]


def test_added_lines_are_in_the_spool_too(calls: Calls) -> None:
    seen: list[bytes] = []
    keep = calls.plugin("b", message_end=lambda hooks, spool: seen.append(b"".join(spool.blocks())))
    front = Front("accept", "force-file", calls.plugin("a", data_start=adding(b"X: 1\n")), keep)
    front.say(DATA, BODY)
    assert seen == [b"X: 1\nline\n"]


def test_an_added_line_that_the_backend_refuses_is_the_answer_to_the_message(calls: Calls) -> None:
    backend = calls.backend(data_block=NO, message_end=None, reset=None)
    output = Front("accept", calls.plugin("a", data_start=adding(b"X: 1\n", b"Y: 2\n")), backend=backend).say(
        DATA, BODY
    )
    assert codes(output)[-2:] == [354, 550]
    assert len(calls.of("data_block")) == 1
    assert calls.of("message_end") == []


def test_a_plugin_may_rewrite_the_spooled_message(calls: Calls) -> None:
    stored: list[bytes] = []

    def rewrite(hooks: Any, spool: Spool) -> None:
        old = b"".join(spool.blocks())
        spool.replace(iter([b"X-Seen: yes\n", old.upper()]))

    def store(hooks: Any, spool: Spool) -> None:
        stored.append(b"".join(spool.blocks()))

    backend = calls.backend(spools=True, message_end=store)
    Front("accept", calls.plugin("a", message_end=rewrite), backend=backend).say(DATA, BODY)
    assert stored == [b"X-Seen: yes\nLINE\n"]


def test_a_rewrite_that_fails_leaves_451_and_nothing_half_changed(calls: Calls) -> None:
    def rewrite(hooks: Any, spool: Spool) -> None:
        def blocks() -> Any:
            yield b"half"
            raise RuntimeError("filter died")

        spool.replace(blocks())

    backend = calls.backend(spools=True, message_end=None)
    output = Front("accept", calls.plugin("a", message_end=rewrite), backend=backend).say(DATA, BODY)
    assert last_line(output) == "451 4.3.0 Internal error."
    assert calls.of("message_end") == ["a"]


def test_without_a_wish_for_it_there_is_no_spool(calls: Calls) -> None:
    seen: list[Any] = []
    Front(
        "accept", calls.plugin("a", data_start=lambda h, s: seen.append(s), message_end=lambda h, s: seen.append(s))
    ).say(DATA, BODY)
    assert seen == [None, None]


# -- many recipients -------------------------------------------------------------------------------------

FOLDS = [
    ([OK, OK], 250), ([NO, NO], 550), ([LATER, LATER], 451), ([NO, LATER], 451), ([OK, NO], 451), ([OK, LATER], 451),
    ([NO, Response(554, "5.0.0 other")], 550), ([Response(452, "4.2.2 full"), NO], 452),
]  # fmt: skip


@pytest.mark.parametrize(("responses", "code"), FOLDS)
def test_results_for_each_recipient_in_smtp(calls: Calls, responses: list[Response], code: int) -> None:
    assert fold(responses).code == code
    front = Front("accept", backend=calls.backend(message_end=lambda hooks, spool: responses))
    assert codes(front.say(HELO + MAIL + RCPT + RCPT + b"DATA\r\n", BODY))[-1] == code


@pytest.mark.parametrize(("responses", "code"), FOLDS)
def test_and_in_lmtp(calls: Calls, responses: list[Response], code: int) -> None:
    front = Front("accept", backend=calls.backend(message_end=lambda h, s: responses), protocol="lmtp")
    output = front.say(b"LHLO x\r\n" + MAIL + RCPT + RCPT + b"DATA\r\n", BODY)
    assert codes(output)[-2:] == [r.code for r in responses]


def test_one_result_is_that_of_every_recipient_in_lmtp(calls: Calls) -> None:
    for answer, code in ((None, 250), (NO, 550)):
        front = Front("accept", backend=calls.backend(message_end=answer), protocol="lmtp")
        output = front.say(b"LHLO x\r\n" + MAIL + RCPT + RCPT + RCPT + b"DATA\r\n", BODY)
        assert codes(output)[-3:] == [code] * 3


def test_an_error_of_a_plugin_is_that_of_every_recipient_in_lmtp(calls: Calls) -> None:
    for hook in ("data_block", "message_end"):
        front = Front("accept", calls.plugin("a", **{hook: NO}), protocol="lmtp")
        output = front.say(b"LHLO x\r\n" + MAIL + RCPT + RCPT + b"DATA\r\n", BODY, b"NOOP\r\n")
        assert codes(output)[-4:] == [354, 550, 550, 250]


def test_a_second_message_for_the_recipients_of_the_first_in_lmtp(calls: Calls) -> None:
    """As compat has it: the machine remembers three, the transaction has one of them."""
    taken = iter([[OK, OK], [NO], OK])
    backend = calls.backend(message_end=lambda hooks, spool: next(taken))
    front = Front("accept", backend=backend, protocol="lmtp", env={"MAILFRONT_PROFILE": "compat"})
    hello = b"LHLO x\r\n" + MAIL + RCPT + RCPT + b"DATA\r\n"
    output = front.say(hello, BODY, RCPT + b"DATA\r\n", BODY, b"DATA\r\n", BODY, b"QUIT\r\n")
    assert codes(output)[5:] == [354, 250, 250, 250, 354, 550, 550, 550, 354, 250, 250, 250, 221]


# -- commands, deadlines, debugging ----------------------------------------------------------------------


def test_the_backends_command_wins_then_the_first_plugins() -> None:
    from mailfront_io.plugin import Command

    def command(verb: str, text: str) -> dict[str, Any]:
        return {"commands": lambda self: [Command(verb, lambda argument: Response(250, text))]}

    one = type("One", (Plugin,), command("XA", "2.0.0 one") | {})
    two = type("Two", (Plugin,), {"commands": lambda self: [
        Command("xa", lambda a: Response(250, "2.0.0 two")), Command("NOOP", lambda a: Response(250, f"2.0.0 noop {a}"))
    ]})  # fmt: skip
    output = Front(one, two, "accept").say(HELO + b"XA\r\nnoop now\r\n")
    assert output.endswith(b"250 2.0.0 one\r\n250 2.0.0 noop now\r\n")
    backend = type("Own", (Backend,), command("XA", "2.0.0 backend"))
    assert Front(one, two, backend=backend).say(HELO + b"XA\r\n").endswith(b"250 2.0.0 backend\r\n")


def test_each_hook_of_each_plugin_has_its_own_deadline(calls: Calls) -> None:
    async def slow(hooks: Any, path: Path) -> Response:
        await Sleep(HOOK_SECONDS - 1)
        return ACCEPT

    plugins = [calls.plugin(name, sender=slow, recipient=slow) for name in "ab"]
    played = Front(*plugins).play([HELO, MAIL, RCPT, EOF])
    assert codes(played.output)[-2:] == [250, 250]
    assert played.elapsed == 4 * (HOOK_SECONDS - 1)


def test_msg_debug_tells_each_call(calls: Calls) -> None:
    plugins = [calls.plugin("a", sender=FINAL), calls.plugin("b", sender=OK, recipient=ACCEPT)]
    front = Front(*plugins, env={"MSG_DEBUG": "1"})
    front.say(HELO, MAIL, RCPT)
    debug = [line.removeprefix("Debug: ") for line in front.log if line.startswith("Debug: ")]
    assert debug == [
        "Calling plugin hook: init", "Calling plugin hook: reset", "Calling plugin hook: helo",
        "Calling plugin hook: reset", "Calling plugin hook: sender", "Calling plugin: a",
        "Plugin a returned 1274:2.0.0 final", "Calling plugin hook: recipient", "Calling plugin: b",
        "Plugin b returned 250:(null)", "Calling plugin hook: reset",
    ]  # fmt: skip
    assert not any(line.startswith("Debug") for line in Front(*plugins, env={"MSG_DEBUG": "0"}).log)


def test_what_a_backend_calls_like_a_hook_is_none() -> None:
    class Own(Backend):
        def __init__(self, session: Session) -> None:
            super().__init__(session)
            self.sender = self.data_block = self.data_end = self.reset = "its own"

    front = Front("accept", backend=Own)
    assert codes(front.say(HELO, MAIL, RCPT, b"DATA\r\n", b"x\r\n.\r\n"))[-4:] == [250, 250, 354, 250]
    assert not [line for line in front.log if "Error" in line]


def test_lines_that_are_added_while_added_lines_are_written_do_not_go_on_for_ever(calls: Calls) -> None:
    blocks: list[bytes] = []

    def block(hooks: Any, data: bytes) -> None:
        blocks.append(data)
        hooks.session.add_lines(b"Late: 1\n")

    front = Front(calls.plugin("a", data_start=adding(b"X: 1\n")), "accept", backend=calls.backend(data_block=block))
    assert codes(front.say(HELO, MAIL, RCPT, b"DATA\r\n", b"x\r\n.\r\n"))[-1] == 250
    assert blocks == [b"X: 1\n", b"x\n"]


# -- hooks that rest -------------------------------------------------------------------------------------

SECOND = MAIL + RCPT + b"DATA\r\n"


def resting(hook: str, *names: str) -> Callable[..., None]:
    """A hook that lets these rest: in ``connect`` for good, in ``data_start`` for each message but the first."""

    def call(hooks: Any, *arguments: Any) -> None:
        messages = getattr(hooks, "messages", 0)
        hooks.messages = messages + 1
        hooks.rest(*names if hook == "connect" or messages else ())

    return call


def test_hooks_that_rest_are_not_called_until_they_are_woken(calls: Calls) -> None:
    def every_other_message(hooks: Any, spool: Spool | None) -> None:
        hooks.messages = getattr(hooks, "messages", 0) + 1
        if hooks.messages % 2:
            hooks.rest("data_block", "message_end")
        else:
            hooks.rest()

    sleeper = calls.plugin("a", data_start=every_other_message, data_block=None, message_end=None)
    front = Front(sleeper, calls.plugin("b", data_start=None, data_block=None, message_end=None), "accept")
    front.say(DATA, BODY, SECOND, BODY, SECOND, BODY)
    assert calls.of("data_start") == ["a", "b"] * 3
    assert calls.of("data_block") == calls.of("message_end") == ["a", "b", "a", "b", "b"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
def test_what_rests_after_connect_stays_so_and_the_others_are_known_by_name(calls: Calls, asynchronous: bool) -> None:
    def broken(hooks: Any, path: Path) -> Response:
        raise RuntimeError("a fault")

    async def broken_later(hooks: Any, path: Path) -> Response:
        await Sleep(1)
        raise RuntimeError("a fault")

    a = calls.plugin("a", connect=resting("connect", "sender", "reset"), sender=None, recipient=None, reset=None)
    b = calls.plugin("b", sender=OK, recipient=broken_later if asynchronous else broken)
    front = Front(a, b, "accept")
    front.service._plugins[1].place = Place(passes=True)
    front.say(DATA, BODY, SECOND, BODY, MAIL, RCPT)
    assert calls.of("sender") == ["a", "b", "a", "b", "b"]  # it rests from the second DATA on
    assert calls[-3:] == ["b.sender", "a.recipient", "b.recipient"]
    *_, fault = [line for line in front.log if line.startswith("Error")]
    assert fault.endswith(": plugin b: RuntimeError: a fault, passed")


@pytest.mark.parametrize("spools", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "async"])
def test_hooks_rest_behind_a_data_start_that_waits(calls: Calls, spools: bool, asynchronous: bool) -> None:
    rest = resting("data_start", "data_block")

    async def later(hooks: Any, spool: Spool | None) -> None:
        await Sleep(1)
        rest(hooks)

    a = calls.plugin("a", data_start=later if asynchronous else rest, data_block=None)
    front = Front(a, calls.plugin("b", data_block=None), "accept", backend=calls.backend(spools))
    front.say(DATA, BODY, SECOND, BODY)
    assert calls.of("data_block") == ["a", "b", "b"]


def test_msg_debug_tells_of_hooks_that_rest_too(calls: Calls) -> None:
    a = calls.plugin("a", connect=resting("connect", "sender"), sender=None)
    front = Front(a, "accept", env={"MSG_DEBUG": "1"})
    front.say(HELO, MAIL)
    assert calls.of("sender") == ["a"] and "Debug: Calling plugin: a" in front.log
