r"""The scripted driver: runs a session against a scripted peer in virtual time. For tests, yours too.

The script says what the peer does; nothing waits in real time and nothing touches a socket::

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

from collections.abc import Sequence
from dataclasses import dataclass, field

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
from mailfront_io.peers import Address

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
    "Late",
    "Mark",
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
