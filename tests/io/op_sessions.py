"""What sessions do with the operations on peers, names and programs. Each function takes the addresses of its helpers
and the clock; what it returns, JSON can say."""

import os
import signal
import ssl
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from mailfront_io.children import Child, Ids, Spawn, SpawnFailed
from mailfront_io.ops import (
    Cancelled,
    Clock,
    ConnectionLost,
    DeadlineExceeded,
    Recv,
    Send,
    Sleep,
    Thread,
    TLSFailed,
)
from mailfront_io.peers import (
    Connect,
    Datagram,
    Exchange,
    Gather,
    Peer,
    Relay,
    Resolve,
    ResolveFailed,
    Scope,
    Unreachable,
)

PATIENCE = 60.0
BLOCK = bytes(range(256)) * 256  # 64 KiB
BIG = 800  # blocks: 50 MiB
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "MARK": "mailfront-test"}

CAUGHT = (ConnectionLost, DeadlineExceeded, ResolveFailed, SpawnFailed, TLSFailed, TypeError, Unreachable)


class Case:
    """One session's work: `help` has the addresses of the helpers."""

    def __init__(self, clock: Clock, helpers: dict[str, Any], note: Callable[[str], None]) -> None:
        self.clock = clock
        self.help = helpers
        self.note = note

    def at(self, name: str) -> Any:
        address = self.help[name]
        return tuple(address) if isinstance(address, list) else address

    def within(self, seconds: float = PATIENCE) -> float:
        return self.clock.monotonic() + seconds

    async def caught(self, awaitable: Awaitable[Any]) -> Any:
        """The name of the exception, or the answer."""
        try:
            return await awaitable
        except CAUGHT as error:
            return type(error).__name__

    async def line(self, peer: Peer, text: bytes = b"hello\n") -> str:
        """Say something, and hear the answer."""
        await peer.send(text, self.within())
        answer = b""
        while not answer.endswith(b"\n"):
            data = await peer.recv(self.within())
            if not data:
                return answer.decode() + "EOF"
            answer += data
        return answer.decode()

    def spawn(self, *words: str, **options: Any) -> Spawn:
        return Spawn(words, ENVIRONMENT, deadline=self.within(), **options)

    def shell(self, script: str, **options: Any) -> Spawn:
        return self.spawn("sh", "-c", script, **options)

    # Connections

    async def connect(self) -> Any:
        with await Connect([self.at("refused"), self.at("missing"), self.at("shout")], self.within()) as peer:
            return [await self.line(peer), await self.line(peer, b"bye\n"), await self.caught(peer.recv(self.within()))
                    == b"", peer.closed]

    async def connect_anywhere(self) -> Any:
        answers = []
        for name in ("shout6", "unix", "shout"):
            peer = await Connect([self.at(name)], self.within(), random_start=True)
            answers.append(await self.line(peer))
        host = await Connect([("localhost", self.at("shout")[1])], self.within())
        answers.append(await self.line(host))
        return answers

    async def connect_to_nobody(self) -> Any:
        return [
            await self.caught(Connect([self.at("refused")], self.within())),
            await self.caught(Connect([], self.within())),
            await self.caught(Connect([self.at("silent")], self.within(0.2))),
            await self.caught(Connect([self.at("silent")], self.within(-1))),
            await self.caught(Connect([("no such host", 25)], self.within())),
        ]

    async def connect_to_others(self) -> Any:
        both = [self.at("shout"), self.at("echo")]
        first = await Connect(both, self.within())
        second = await Connect(both, self.within(), tried=[first.address])
        none = Connect(both, self.within(), tried=[first.address, second.address])
        return [first.address == both[0], second.address == both[1], await self.caught(none)]

    async def connect_past_silence(self) -> Any:
        began = self.clock.monotonic()
        peer = await Connect([self.at("silent"), self.at("shout")], self.within(5))
        return [await self.line(peer), 1 <= self.clock.monotonic() - began < 5]

    async def breaks(self) -> Any:
        peer = await Connect([self.at("reset")], self.within())
        await peer.send(b"x", self.within())
        answers: list[Any] = [await self.caught(peer.recv(self.within()))]
        peer.close()
        try:
            await peer.recv()
        except RuntimeError as error:
            answers.append("closed" in str(error))
        return answers

    async def deadlines(self) -> Any:
        quiet = await Connect([self.at("silence")], self.within())
        answers = [await self.caught(quiet.recv(self.within(0.1)))]
        answers.append(await self.caught(self._pour(quiet, self.within(0.3))))
        loud = await Connect([self.at("chatter")], self.within())
        deadline = self.within(0.3)
        answers.append(await self.caught(self._drink(loud, deadline)))
        return answers

    async def _pour(self, peer: Peer, deadline: float) -> None:
        for _ in range(BIG):
            await peer.send(BLOCK, deadline)

    async def _drink(self, peer: Peer, deadline: float) -> None:
        while await peer.recv(deadline):
            pass

    async def much(self) -> Any:
        """12 MB there, 12 MB back."""
        peer = await Connect([self.at("echo")], self.within())
        blocks = [BLOCK] * (BIG // 4)
        done = await Exchange({peer: blocks}, {peer: len(BLOCK) * BIG}, self.within())
        received = done.received[peer]
        peer.close()
        other = await Connect([self.at("checksum")], self.within())
        for block in blocks:
            await other.send(block, self.within())
        await other.send_eof(self.within())
        said = await other.recv(self.within())
        return [len(received), said.decode() == f"{len(received)} {zlib.crc32(received)}\n", len(done.unsent)]

    def _blocks(self) -> Iterator[bytes]:
        return (BLOCK for _ in range(BIG))

    async def exchange(self) -> Any:
        """Limits, several peers, one that breaks."""
        one = await Connect([self.at("echo")], self.within())
        two = await Connect([self.at("shout")], self.within())
        done = await Exchange({one: b"a" * 1000, two: [b"b\n", b"", b"bye\n"]}, {one: 10, two: 100}, self.within())
        quiet = await Connect([self.at("silence")], self.within())
        lost = await Connect([self.at("reset")], self.within())
        return [
            done.received[one].decode(),
            done.received[two].decode(),
            await self.caught(Exchange({quiet: BLOCK * 99}, {quiet: 1}, self.within(0.2))),
            await self.caught(Exchange({lost: b"x"}, {lost: 1}, self.within())),
        ]

    async def tls(self) -> Any:
        context = ssl.create_default_context(cafile=self.help["ca"])
        peer = await Connect([self.at("tls")], self.within(), tls=context, server_hostname="mx.example.org")
        answers: list[Any] = [await self.line(peer)]
        answers += [await self.line(peer, b"bye\n"), (await peer.recv(self.within())).decode()]
        wrong = Connect([self.at("tls")], self.within(), tls=context, server_hostname="other.example.org")
        answers.append(await self.caught(wrong))
        late = await Connect([self.at("starttls")], self.within())
        answers.append((await late.recv(self.within())).decode())
        facts = await late.start_tls(context, "mx.example.org", self.within())
        answers += [facts.protocol, await self.line(late, b"x" * 100_000 + b"\n") == "X" * 100_000 + "\n"]
        quiet = await Connect([self.at("silence")], self.within())
        answers.append(await self.caught(quiet.start_tls(context, "mx.example.org", self.within(0.1))))
        return answers

    # Datagrams and names

    async def datagrams(self) -> Any:
        def take(data: bytes) -> str | None:
            return data.decode() if data.startswith(b"right") else None

        return [
            await Datagram(self.at("udp"), b"me", take, self.within(), waits=(0.1, 2.0)),
            await self.caught(Datagram(self.at("udp_refused"), b"me", take, self.within())),
            await self.caught(Datagram(self.at("stranger"), b"me", take, self.within(), waits=(0.1, 0.1))),
            await self.caught(Datagram(self.at("stranger"), b"me", take, self.within(0.1))),
        ]

    async def names(self) -> Any:
        end = self.within()
        return [
            sorted(await Resolve("mail.example", "A", end)),
            sorted(await Resolve("Mail.example.", "A", end)),
            await Resolve("mail.example", "AAAA", end),
            await Resolve("mail.example", "MX", end),
            sorted(text.decode() for text in await Resolve("mail.example", "TXT", end)),
            sorted(await Resolve("alias.example", "A", end)),
            await Resolve("null.example", "MX", end),
            await Resolve("nobody.example", "A", end),
            await Resolve("mail.example." + "x" * 70, "A", end),
            await Resolve("no name at all", "A", end),
            await Resolve("", "A", end),
            await self.caught(Resolve("broken.example", "A", end)),
            await self.caught(Resolve("lost.example", "A", self.within(0.2))),
        ]

    async def h68_hostile_names(self) -> Any:
        end = self.within()
        return [
            await Resolve("odd.example", "MX", end),
            len(await Resolve("many.example", "A", end)),
            len(await Resolve("long.example", "TXT", end)),
            await self.caught(Resolve("huge.example", "TXT", end)),
            await Resolve("forged.example", "A", end),
        ]

    async def lists(self) -> Any:
        """Four lookups of a second at once."""
        await Resolve("nobody.example", "A", self.within())  # loads dnspython
        began = self.clock.monotonic()
        found = await Gather([Resolve(f"slow{i}.example", "A", self.within()) for i in range(4)])
        return [found, 0.9 < self.clock.monotonic() - began < 3.9]  # one after the other: 4

    # Several at once

    async def gathered(self) -> Any:
        peer = await Connect([self.at("silence")], self.within())
        child = await self.spawn("true")
        found: list[Any] = await Gather(
            [
                Sleep(0.05),
                Thread(divmod, 17, 5),
                Thread(int, "x"),
                Connect([self.at("refused")], self.within()),
                peer.recv(self.within(0.1)),
                Resolve("nobody.example", "A", self.within()),
                child.wait(self.within()),
                peer.send(b"x", self.within()),
            ]
        )
        answers = [type(one).__name__ if isinstance(one, Exception) else one for one in found]
        answers.append(await self.caught(Gather([Sleep(0), Recv()])))
        began = self.clock.monotonic()
        late: list[Any] = await Gather([peer.recv(), Sleep(9), Thread(divmod, 1, 1)], self.within(2))
        answers += [type(one).__name__ for one in late]
        return [*answers, self.clock.monotonic() - began < 8, await Gather([])]

    # Programs

    async def programs(self) -> Any:
        answers: list[Any] = []
        with await self.spawn("cat", writes=(0,), reads=(1,)) as cat:
            done = await Exchange({cat.pipes[0]: b"hello"}, {cat.pipes[1]: 100}, self.within())
            answers += [done.received[cat.pipes[1]].decode(), await cat.wait(self.within())]
        with await self.shell("cat; cat <&1; exit 3", writes=(0, 1)) as both:
            done = await Exchange({both.pipes[0]: b"message", both.pipes[1]: b"envelope"}, {}, self.within())
            answers += [len(done.unsent), await both.wait(self.within())]
        with await self.shell("kill -TERM $$") as killed:
            answers.append(await killed.wait(self.within()))
        with await self.shell("exec sleep 60") as sleeper:
            answers.append(await self.caught(sleeper.wait(self.within(0.1))))
            sleeper.kill()
            answers.append(await sleeper.wait(self.within()))
            answers.append(await sleeper.wait(self.within()))
        with await self.spawn("cat", socket=(0, 1)) as cat:
            assert cat.socket is not None
            answers.append(await self.line(cat.socket))
            await cat.socket.send_eof(self.within())
            answers.append(await cat.wait(self.within()))
        with await self.spawn("true", writes=(0,)) as deaf:
            done = await Exchange({deaf.pipes[0]: self._blocks()}, {}, self.within())
            answers += [len(done.unsent), await deaf.wait(self.within())]
        return answers

    async def surroundings(self) -> Any:
        """What a program finds when it starts."""
        script = 'pwd; env | sort; ls /proc/self/fd; grep SigIgn /proc/self/status; echo "$@" >&2'
        words = ("sh", "-c", script, "sh", "; rm -rf *", "$HOME")
        spawn = Spawn(words, {"PATH": "/usr/bin:/bin"}, directory="/", reads=(1, 2), deadline=self.within())
        with await spawn as child:
            out, err = child.pipes[1], child.pipes[2]
            done = await Exchange({}, {out: 9999, err: 9999}, self.within())
            await child.wait(self.within())
        lines = done.received[out].decode().split()
        named = [line for line in lines if "=" in line and not line.startswith(("_=", "SHLVL="))]
        mask = lines[lines.index("SigIgn:") + 1]
        low = [line for line in lines if line.isdigit() and line != mask and int(line) > 3]  # 3: the listing's
        pipes = [signal.SIGPIPE, signal.SIGXFSZ]
        restored = [not int(mask, 16) >> (number - 1) & 1 for number in pipes]
        return [lines[0], named, low, restored, done.received[err].decode()]

    async def cannot_start(self) -> Any:
        answers = []
        for spawn in (
            self.spawn("/no/such/program"),
            self.spawn("no-such-program"),
            self.spawn("/etc/passwd"),
            self.spawn("true", directory="/no/such/directory"),
        ):
            try:
                await spawn
            except SpawnFailed as error:
                answers.append([error.step, error.errno, str(error)])
        return answers

    async def as_somebody(self) -> Any:
        if os.geteuid() != 0:
            return ["65534", "65533", "65533 65532"]
        spawn = self.shell("id -u; id -g; id -G", ids=Ids(65534, 65533, (65532,)), reads=(1,), directory="/")
        with await spawn as child:
            done = await Exchange({}, {child.pipes[1]: 999}, self.within())
        return done.received[child.pipes[1]].decode().splitlines()

    async def much_through_pipes(self) -> Any:
        """50 MB through a program that answers while it is written to, and complains meanwhile."""
        script = "import sys,shutil\nfor i in range(3000): sys.stderr.write('x'*99+'\\n')\n" \
                 "shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer, 1<<20)"
        spawn = self.spawn(sys.executable, "-I", "-c", script, writes=(0,), reads=(1, 2))
        with await spawn as child:
            send = {child.pipes[0]: self._blocks()}
            receive = {child.pipes[1]: len(BLOCK) * BIG + 1, child.pipes[2]: 1000}
            done = await Exchange(send, receive, self.within())
            code = await child.wait(self.within())
        received = done.received[child.pipes[1]]
        right = zlib.crc32(BLOCK * 10) == zlib.crc32(received[-len(BLOCK) * 10 :])
        return [len(received), right, len(done.received[child.pipes[2]]), code]

    async def crash(self) -> Any:
        """A program that dies in the middle of its input."""
        with await self.shell("head -c 100000 >/dev/null; kill -9 $$", writes=(0,), reads=(1,)) as child:
            done = await Exchange({child.pipes[0]: self._blocks()}, {child.pipes[1]: 1}, self.within())
            return [len(done.unsent), await child.wait(self.within())]

    async def left_open(self) -> Any:
        """What is open when the session ends; and what a scope closes."""
        scope = Scope()
        peer = await Connect([self.at("shout")], self.within(), scope=scope)
        child = await self.shell("sleep 60 & sleep 60", scope=scope, reads=(1,))
        scope.close()
        answers: list[Any] = [peer.closed, child.closed, await child.wait(self.within())]
        self._left: list[Peer | Child] = [
            await Connect([self.at("shout")], self.within()),
            await self.shell("sleep 60 & sleep 60", reads=(1, 2), writes=(0,)),
            await self.spawn("cat", socket=(0, 1)),
            await self.spawn("true"),
        ]
        return answers

    # Waits that are cancelled

    async def hang(self, what: str) -> Any:
        """Wait for something that does not come."""
        child: Child | None = None
        if what == "connect":
            waiting: Any = Connect([self.at("silent")], self.within())
        elif what == "recv":
            waiting = (await Connect([self.at("silence")], self.within())).recv(self.within())
        elif what == "send":
            waiting = self._pour(await Connect([self.at("silence")], self.within()), self.within())
        elif what == "datagram":
            waiting = Datagram(self.at("stranger"), b"me", lambda _: None, self.within())
        elif what == "resolve":
            waiting = Resolve("lost.example", "A", self.within())
        elif what == "gather":
            waiting = Gather([Resolve("lost.example", "A"), Sleep(PATIENCE), Connect([self.at("silent")])])
        elif what in ("sleep", "clean-up", "clean-up-together"):
            waiting = Gather([Sleep(PATIENCE)])
        elif what == "relay":
            waiting = Relay(await Connect([self.at("silence")], self.within()))
        else:
            child = await self.spawn("cat", writes=(0,), reads=(1,))
            waiting = child.wait(self.within())
        await Send(b"waiting\r\n")
        try:
            return str(await waiting)
        except Cancelled:
            silent = Connect([self.at("silent")])  # bounded, though it has no deadline
            if what == "clean-up":
                self.note(await self.caught(silent))
                raise
            if what == "clean-up-together":
                self.note(str([type(one).__name__ for one in await Gather([silent])]))
                raise
            with await Connect([self.at("shout")], self.within()) as peer:  # clean-up
                answer = await self.line(peer)
            code = None
            if child is not None:
                child.kill()
                code = await child.wait(self.within())
            self.note(f"clean-up {answer!r} {code}")
            raise


def descriptors() -> list[int]:
    """How many descriptors and children this process has."""
    children = sum(
        len((task / "children").read_text().split()) for task in Path("/proc/self/task").iterdir()
    )
    return [len(os.listdir("/proc/self/fd")), children]
