"""Operations that run other programs.

No shell is ever in between: a program gets its arguments as they are. It starts with the descriptors 0, 1 and 2 and no
other, in a session and process group of its own, with the signals that Python ignores (SIGPIPE, SIGXFSZ) as usual, and
with the environment that is given and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mailfront_io.ops import Operation
from mailfront_io.peers import Peer, Scope
from mailfront_proto.record import record


class SpawnFailed(Exception):
    """The program could not be started. `step`: what failed, ``ids`` (user, group, groups), ``directory`` or
    ``execute``; `errno`: the system's number. The text names the program and says why."""

    def __init__(self, text: str, step: str, errno: int) -> None:
        super().__init__(text)
        self.step = step
        self.errno = errno


@record(frozen=True)
class Ids:
    """Who a program runs as: user, group, and supplementary groups (none but these are kept)."""

    user: int
    group: int
    groups: tuple[int, ...] = ()


class Child:
    """A program that was started.

    `pid`; `pipes`: our ends of what was asked for, by the child's descriptor; `socket`: our end of its socket, if it
    was given one. Await `wait`, then `close`; or leave a ``with`` block, which does it.
    """

    __slots__ = ("closed", "pid", "pipes", "process", "socket")

    def __init__(self, pid: int, pipes: Mapping[int, Peer], socket: Peer | None, process: Any) -> None:
        self.pid = pid
        self.pipes = pipes
        self.socket = socket
        self.process = process
        """The driver's."""
        self.closed = False

    def wait(self, deadline: float | None = None) -> "Wait":
        """Wait for its end; the answer is its exit code, or minus the signal's number. Throws `DeadlineExceeded`;
        the child lives on then. Read its output first (`Exchange`): a child that finds a pipe full waits for us."""
        return Wait(self, deadline)

    def kill(self) -> None:
        """Kill it and its process group (SIGKILL), if it was not waited for. `wait` then gets -9."""
        self.process.kill()

    def close(self) -> None:
        """Close our ends, and kill it if it was not waited for. The driver sees to it that no zombie is left."""
        if not self.closed:
            self.closed = True
            for peer in (*self.pipes.values(), self.socket):
                if peer is not None:
                    peer.close()
            self.process.kill()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Child {self.pid}{' closed' if self.closed else ''}>"


class Spawn(Operation[Child]):
    """Start a program.

    `arguments`: ``argv``; without a slash the first is looked up in the PATH of `environment`. `environment`: all of
    it; values must not come unchecked from a peer. `directory`: to start in. `ids`: to run as.

    Each of the descriptors 0, 1 and 2 is one of: in `writes`, a pipe that we write; in `reads`, a pipe that we read; in
    `socket`, a socket, the same one for all of them; in `files`, an open file of ours, by its descriptor; else
    ``/dev/null``, but 2 our own standard error. `scope`: closes it.

    Throws `SpawnFailed`, `DeadlineExceeded` (the child is killed should it start after all).
    """

    __slots__ = ("arguments", "directory", "environment", "files", "ids", "reads", "scope", "socket", "writes")

    def __init__(
        self,
        arguments: Sequence[str | bytes],
        environment: Mapping[str, str],
        *,
        directory: str | None = None,
        ids: Ids | None = None,
        writes: Sequence[int] = (),
        reads: Sequence[int] = (),
        socket: Sequence[int] = (),
        files: Mapping[int, int] | None = None,
        deadline: float | None = None,
        scope: Scope | None = None,
    ) -> None:
        used = [*writes, *reads, *socket, *(files or ())]
        if len(set(used)) < len(used) or not {0, 1, 2}.issuperset(used):
            raise ValueError(f"a child's descriptors are 0, 1 and 2, each used once: {sorted(used)}")
        if not arguments:
            raise ValueError("a program has at least its name as an argument")
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
        self.ids = ids
        self.writes = writes
        self.reads = reads
        self.socket = socket
        self.files = files or {}
        self.deadline = deadline
        self.scope = scope


class Wait(Operation[int]):
    """See `Child.wait`."""

    __slots__ = ("child",)

    def __init__(self, child: Child, deadline: float | None = None) -> None:
        self.child = child
        self.deadline = deadline


class HandOff(Operation[int]):
    """Hand the session's connection to a program, as its descriptors 0 and 1: the last thing that a session does.

    A one-shot program is replaced by it (its own descriptor 2 stays), and the `await` does not return. Where that
    cannot be (a server serves other sessions; TLS; `first`), the program is started as a child on a socket, the
    connection is relayed to it (see `Relay`), and the answer is its exit code, or minus the signal's number.

    `first`: what the session has read beyond the login. So that a one-shot program need not stay for its sake, read
    with `RecvLine` up to the login. `arguments`, `environment`, `directory`, `ids`: see `Spawn`; a one-shot program
    takes on groups, group, user and then the directory (a child's directory is entered first). `idle`: see `Relay`.

    Throws `SpawnFailed`: nothing has been said to the peer, so the session can still say why it ends.
    """

    __slots__ = ("arguments", "directory", "environment", "first", "idle", "ids")

    def __init__(
        self,
        arguments: Sequence[str | bytes],
        environment: Mapping[str, str],
        *,
        first: bytes = b"",
        directory: str | None = None,
        ids: Ids | None = None,
        idle: float | None = None,
        deadline: float | None = None,
    ) -> None:
        if not arguments:
            raise ValueError("a program has at least its name as an argument")
        self.arguments = arguments
        self.environment = environment
        self.first = first
        self.directory = directory
        self.ids = ids
        self.idle = idle
        self.deadline = deadline
