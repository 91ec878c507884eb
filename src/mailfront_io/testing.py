r"""The test kit: sessions, and plugins in them, against scripts in virtual time. For tests, yours too.

`Front` is a front end with plugins of yours in it::

    front = Front(MyPlugin, "accept", settings={"MY_SETTING": "1"})
    assert front.say(b"EHLO me\r\nMAIL FROM:<a@b.example>\r\n").endswith(b"550 5.7.1 Not here\r\n")

It plays with `run_script`, which runs any session. The script says what the peer does; nothing waits in real time and
nothing touches a socket::

    played = run_script(session, [b"EHLO x\r\n", WaitFor(b"250 "), b"QUIT\r\n", EOF])
    assert played.output.endswith(b"221 bye\r\n")

The actions happen in their order, each once the one before it is done; bytes are done when received.

* ``bytes``: the peer sends them; the session gets each item as one `Recv` (cut at `RECEIVE_SIZE`).
* `WaitFor`: the peer waits until `text` has appeared in the output that follows the last match.
* `Advance`: the peer does nothing for that many virtual seconds.
* `EOF`: it closes its sending side. `RESET`: it breaks the connection.
* `STALL`: it stops reading, so that a `Send` waits for its deadline; `READ`: it reads again.
* `PeerTLS`: it starts TLS, as a client or a server; what it sends and what it sees is plain text again from there.
* `STOP`: the server is stopping (`Stopping` at an idle `Recv`). `CANCEL`: the grace period is over.
* `UNTIL_EOF`: it waits until the session has ended its sending, which only others than the session's peer can see.

Whom the session and its plugins can reach besides, `outside` says: servers at addresses, with scripts like the peer's,
name servers' answers, programs. Nothing of it is real either::

    outside = Outside(
        peers={("clamd.example", 3310): [WaitFor(b"zPING\\0"), b"PONG\\0", EOF], "/run/spamd": REFUSED},
        dns={("2.0.0.127.list.example", "A"): ["127.0.0.2"], ("slow.example", "TXT"): Late(3.0, [b"hello"])},
        programs={"qmail-queue": Program(code=31)},
    )
    played = run_script(session, script, outside=outside)
    assert played.peers == [(("clamd.example", 3310), b"zPING\\0")]

The clock stands still while anything can happen and jumps to the next event when nothing can: the peer's next
action, the end of a `Sleep`, a deadline. `Thread` runs its function at once, in this thread; a function may
move the clock with `VirtualClock.advance`. A session that would wait for ever is an AssertionError, and so is
a script that was not used up, unless ``all_read=False`` says that the session may leave some of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from mailfront_io.drivers.scripted import (
    CANCEL,
    EOF,
    REFUSED,
    RESET,
    SILENT,
    STALL,
    STOP,
    UNTIL_EOF,
    Action,
    Advance,
    Late,
    Mark,
    Outside,
    PeerTLS,
    Program,
    Ran,
    ScriptedWorld,
    VirtualClock,
    WaitFor,
)
from mailfront_io.drivers.stepper import run
from mailfront_io.ops import Connection, SessionFactory
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.peers import Address
from mailfront_io.plugin import Backend, Plugin
from mailfront_io.service import Service
from mailfront_io.spool import Spool

if TYPE_CHECKING:
    from mailfront_io.auth.store import CredentialStore

READ = Mark.READ

__all__ = (
    "CANCEL",
    "EOF",
    "READ",
    "REFUSED",
    "RESET",
    "SILENT",
    "STALL",
    "STOP",
    "UNTIL_EOF",
    "Action",
    "Advance",
    "Front",
    "Kept",
    "Late",
    "Mark",
    "Message",
    "Outside",
    "PeerTLS",
    "Played",
    "Program",
    "Ran",
    "VirtualClock",
    "WaitFor",
    "run_script",
)


@dataclass(slots=True)
class Played:
    """What came of a script.

    `output`: all that the peer got (plain text, where it used TLS); `writes`: the same as (seconds since the
    start, bytes) per `Send`; `result`: what the session returned; `error`: what it raised; `elapsed`:
    virtual seconds in all; `unread`: what was left of the script. `peers`: whom else the session has talked to, in the
    order of connecting, and what each got; `programs`: what it has started.
    """

    output: bytes = b""
    writes: list[tuple[float, bytes]] = field(default_factory=list)
    result: int | None = None
    error: BaseException | None = None
    elapsed: float = 0.0
    unread: list[Action] = field(default_factory=list)
    peers: list[tuple[Address, bytes]] = field(default_factory=list)
    programs: list[Ran] = field(default_factory=list)


def run_script(
    session: SessionFactory,
    script: Sequence[Action],
    *,
    clock: VirtualClock | None = None,
    local: tuple[str, int] | None = ("127.0.0.1", 25),
    remote: tuple[str, int] | None = ("127.0.0.1", 50_000),
    outside: Outside | None = None,
    catch: bool = False,
    all_read: bool = True,
) -> Played:
    """Run the session that `session` makes against `script`, with nobody else to be reached but `outside`.

    What the session raises is raised here, or with `catch` is kept in `Played.error`. Raises AssertionError
    as the module's head says.
    """
    clock = clock or VirtualClock()
    started = clock.monotonic()
    world = ScriptedWorld(clock, script, outside or Outside())
    played = Played()
    try:
        played.result = run(session(Connection(clock, local, remote)), world)
    except BaseException as error:
        if not catch and world.stuck is None:
            raise
        played.error = error
    world.play()  # what the peer still does by itself
    played.output = bytes(world.own.received)
    played.writes = [(when - started, data) for when, data in world.own.writes]
    played.elapsed = clock.monotonic() - started
    played.unread = list(world.own.script)
    played.peers = [(address, bytes(party.received)) for address, party in world.peers]
    played.programs = world.programs
    if world.stuck is not None:
        raise AssertionError(f"{world.stuck}; left of the script: {played.unread}; output: {played.output!r}")
    if all_read and played.unread:
        raise AssertionError(f"the session left {played.unread} unread; output: {played.output!r}")
    return played


# -- plugins -----------------------------------------------------------------------------------------------


CONNECTION: Mapping[str, str] = {
    "PROTO": "TCP",
    "TCPLOCALHOST": "mx.example.org",
    "TCPLOCALIP": "192.0.2.1",
    "TCPREMOTEIP": "198.51.100.7",
    "TCPREMOTEHOST": "client.example.net",
}
"""The facts of the connection, unless the settings say otherwise."""


class Message(NamedTuple):
    """A message that was accepted: its envelope, and its text with LF line ends."""

    sender: str
    recipients: list[str]
    text: bytes


class Kept(Backend):
    """Takes every message, and keeps it in `messages`."""

    name = "kept"
    messages: list[Message]

    def data_start(self, spool: Spool | None) -> None:
        """A message begins."""
        self._blocks: list[bytes] = []

    def data_block(self, data: bytes) -> None:
        """A part of it."""
        self._blocks.append(data)

    def message_end(self, spool: Spool | None) -> None:
        """It is complete. A plugin may have put another in its place."""
        envelope = self.session.envelope
        sender = envelope.sender.address if envelope.sender is not None else ""
        text = b"".join(self._blocks if spool is None else spool.blocks())
        self.messages.append(Message(sender, [path.address for path in envelope.recipients], text))

    def reset(self) -> None:
        """It is dropped."""
        self._blocks = []


class Front:
    """A front end with plugins: each a class, or an element of a plugin list (``"accept"``, ``"clamav,failure=pass"``).

    `backend`: likewise, and by default one that keeps every message in `messages`. `settings`: the settings, and the
    facts of the connection if they are not to be `CONNECTION`. `protocol`: ``smtp``, ``lmtp``, ``qmtp`` or ``qmqp``.
    `credentials`: the store, else the one that ``AUTH_STORE`` names. `log` collects the lines of the log; `faults` are
    those that tell of a hook that has raised (a `CheckFailed` with a reason, too), hung or answered nonsense.
    """

    def __init__(
        self,
        *plugins: str | type[Plugin],
        backend: str | type[Backend] = Kept,
        settings: Mapping[str, str] | None = None,
        protocol: str = "smtp",
        credentials: "CredentialStore | None" = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.log: list[str] = []
        self.messages: list[Message] = []
        if backend is Kept:
            backend = type("Kept", (Kept,), {"messages": self.messages})
        environment = {**CONNECTION, **(settings or {})}
        self.service = Service(protocol, backend, plugins, environment, log or self.log.append, credentials)

    def session(self, connection: Connection) -> SessionCoroutine:
        """The session of a connection: for `run_script`, or any other driver."""
        return self.service.session(connection)

    def play(
        self,
        script: Sequence[Action],
        *,
        clock: VirtualClock | None = None,
        outside: Outside | None = None,
        catch: bool = False,
        all_read: bool = True,
    ) -> Played:
        """Run a session against `script`; see `run_script`."""
        return run_script(self.session, script, clock=clock, outside=outside, catch=catch, all_read=all_read)

    def say(self, *pieces: bytes, all_read: bool = False) -> bytes:
        """The output, when the client sends `pieces`, each in a read of its own, and then closes."""
        return self.play([*pieces, EOF], all_read=all_read).output

    @property
    def faults(self) -> list[str]:
        """What the log says of hooks that have failed."""
        return [line for line in self.log if line.startswith("Error ")]
