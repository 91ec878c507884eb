"""Plugins and backends of the sessions: they refuse, raise, hang or talk nonsense where a setting says so.

``AT``: the hook (``connect`` …). ``DO``: ``refuse TEXT`` with TEXT beginning with the code, ``accept TEXT``,
``final TEXT``, ``raise``, ``hang``, ``nonsense``, ``await-nonsense``. ``ONCE``: only the first time.
"""

from collections.abc import Generator, Iterable, Sequence
from typing import Any

from mailfront_io.ops import Sleep, Thread
from mailfront_io.plugin import Backend, Command, Hooks, Kind, Lines, Plugin, Response, Setting
from mailfront_io.session import Path
from mailfront_io.spool import Spool
from mailfront_proto.smtp.events import VerifyPassword


class _Nonsense:
    """Awaitable, but no operation: what awaiting an event loop's things amounts to."""

    def __await__(self) -> Generator[str, None, None]:
        yield "a future of some event loop"


class _Misbehaving(Hooks):
    def _at(self, hook: str) -> str | None:
        """What to do at `hook`; None: nothing."""
        if self.session.getenv("AT") != hook:
            return None
        done = self.session.numbers.get("misbehaved", 0)
        self.session.numbers["misbehaved"] = done + 1
        if done and self.session.getenv("ONCE"):
            return None
        self.session.log(f"misbehaves at {hook}")
        return self.session.getenv("DO")

    def _answer(self, hook: str) -> Any:
        what, _, text = (self._at(hook) or "").partition(" ")
        if what in ("refuse", "accept", "final"):
            return Response(int(text[:3]), text[4:], final=what == "final")
        if what == "raise":
            raise RuntimeError("secret details\r\n250 of the inside")
        if what == "nonsense":
            return "250 this is no Response"
        return None

    async def _answer_later(self, hook: str) -> Any:
        if self.session.getenv("BY") == "thread":
            await Thread(len, b"")
        else:
            await Sleep(0.001)
        if self.session.getenv("DO") not in ("hang", "await-nonsense"):
            return self._answer(hook)
        what = self._at(hook)
        if what == "hang":
            try:
                await Sleep(1_000_000)
            finally:
                self.session.log("is cleaned up")
        elif what == "await-nonsense":
            await _Nonsense()
        return None


class Plain(Plugin, _Misbehaving):
    """Every hook a plain function."""

    name = "plain"

    def connect(self) -> Any:
        return self._answer("connect")

    def helo(self, host: str, capabilities: list[str]) -> Any:
        return self._answer("helo")

    def sender(self, path: Path) -> Any:
        return self._answer("sender")

    def recipient(self, path: Path) -> Any:
        return self._answer("recipient")

    def data_start(self, spool: Spool | None) -> Any:
        return self._answer("data_start")

    def data_block(self, data: bytes) -> Any:
        return self._answer("data_block")

    def message_end(self, spool: Spool | None) -> Any:
        return self._answer("message_end")

    def reset(self) -> Any:
        return self._answer("reset")

    def disconnect(self) -> Any:
        self.session.log("disconnect")
        return self._answer("disconnect")


class Async(Plugin, _Misbehaving):
    """Every hook a coroutine function that awaits an operation (``BY``: sleep or thread) before it answers."""

    name = "async"

    async def connect(self) -> Any:
        return await self._answer_later("connect")

    async def helo(self, host: str, capabilities: list[str]) -> Any:
        return await self._answer_later("helo")

    async def sender(self, path: Path) -> Any:
        return await self._answer_later("sender")

    async def recipient(self, path: Path) -> Any:
        return await self._answer_later("recipient")

    async def data_start(self, spool: Spool | None) -> Any:
        return await self._answer_later("data_start")

    async def data_block(self, data: bytes) -> Any:
        return await self._answer_later("data_block")

    async def message_end(self, spool: Spool | None) -> Any:
        return await self._answer_later("message_end")

    async def reset(self) -> Any:
        return await self._answer_later("reset")

    async def disconnect(self) -> Any:
        self.session.log("disconnect")
        return await self._answer_later("disconnect")


class Vendor(Plugin):
    """Commands and a capability of its own; one command comes and goes."""

    name = "vendor"
    _hidden = False

    def helo(self, host: str, capabilities: list[str]) -> None:
        capabilities.append("XVENDOR one two")

    def commands(self) -> Iterable[Command]:
        yield Command("XECHO", self._echo, "required")
        yield Command("XSLEEP", self._sleep, "forbidden")
        yield Command("XRAISE", self._raise)
        yield Command("NOOP", self._noop)

    def _echo(self, argument: str) -> Response:
        return Response(250, f"2.0.0 {argument}\nand a second line")

    async def _sleep(self, argument: str) -> Response:
        await Sleep(0.001)
        return Response(450, "4.0.0 slept")

    async def _raise(self, argument: str) -> Response:
        await Thread(int, "no number")
        return Response(250)

    def _noop(self, argument: str) -> Response:
        return Response(250, "2.0.0 a plugin's NOOP")


class Impatient(Plugin):
    """Refuses clients that talk before they are greeted."""

    name = "impatient"

    def connect(self) -> Response | None:
        early = self.session.numbers.get("early_talker")
        return Response(554, "5.5.1 You spoke too soon") if early else None


class Rewrite(Plugin):
    """Changes addresses, adds a line, and replaces the spooled message."""

    name = "rewrite"
    spools = True

    def sender(self, path: Path) -> None:
        path.address = path.address.upper()

    async def recipient(self, path: Path) -> None:
        await Sleep(0)
        path.address += ".invalid"

    def data_start(self, spool: Spool | None) -> None:
        self.session.add_lines(b"X-Added: yes\n")

    async def message_end(self, spool: Spool | None) -> None:
        assert spool is not None
        await Thread(spool.replace, (block.replace(b"red", b"blue") for block in spool.blocks()))


class LoginOnly(Plugin):
    """AUTH without a store: one user, no TLS asked for; ``temporary`` fails for now."""

    name = "login-only"

    def mechanisms(self) -> Sequence[str]:
        return ("LOGIN",)

    async def auth(self, request: VerifyPassword) -> Response:
        await Thread(len, b"")
        if request.username == "temporary":
            return Response(454, "4.7.0 Ask again later")
        right = request.password.reveal() == b"secret"
        return Response(235 if right else 535, "2.7.0 Welcome" if right else "5.7.8 No")


class PerRecipient(Backend):
    """Answers each recipient by the code that its local part begins with; ``all-…`` answers once."""

    name = "per-recipient"

    async def message_end(self, spool: Spool | None) -> Response | list[Response]:
        await Thread(len, b"")
        responses = []
        for path in self.session.envelope.recipients:
            if path.address.startswith("all-"):
                return Response(int(path.address[4:7]), "4.0.0 one answer for all")
            responses.append(Response(int(path.address[:3]), f"{path.address[0]}.0.0 for {path.address}"))
        return responses


class BadBackend(Backend, _Misbehaving):
    """A backend that does what ``AT`` and ``DO`` say, its hooks plain but for ``message_end``."""

    name = "bad-backend"

    def connect(self) -> Any:
        return self._answer("connect")

    def sender(self, path: Path) -> Any:
        return self._answer("sender")

    def recipient(self, path: Path) -> Any:
        return self._answer("recipient")

    def data_start(self, spool: Spool | None) -> Any:
        return self._answer("data_start")

    def data_block(self, data: bytes) -> Any:
        return self._answer("data_block")

    async def message_end(self, spool: Spool | None) -> Any:
        return await self._answer_later("message_end")

    def reset(self) -> Any:
        return self._answer("reset")


class Wire(Backend):
    """Keeps what SMTP extensions promise: the message octet by octet, and what the parameters say, in ``$WIRE``."""

    name = "wire"
    lines = Lines.CRLF
    extensions = frozenset(("BINARYMIME", "DSN", "REQUIRETLS"))
    spools = True
    settings = (Setting("WIRE", Kind.TEXT, "the file", required=True),)

    async def message_end(self, spool: Spool | None) -> None:
        assert spool is not None
        envelope = self.session.envelope
        assert envelope.sender is not None
        words = envelope.sender.options.parameters()
        for path in envelope.recipients:
            words += path.options.parameters()
        await Thread(self._write, " ".join(words).encode(), spool, commit=True)

    def _write(self, words: bytes, spool: Spool) -> None:
        name = self.session.getenv("WIRE")
        assert name is not None
        with open(name, "ab") as file:
            file.writelines([words, b"\n", *spool.blocks()])


class OnlyChunks(Plugin):
    """Takes messages by BDAT alone."""

    name = "only-chunks"

    def commands(self) -> Iterable[Command]:
        yield Command("DATA", self._data)

    def _data(self, argument: str) -> Response:
        return Response(502, "5.5.1 BDAT, please")
