"""Records sessions anew: plays the clients of the files in the scripted driver and writes what comes out.

    python -m tests.conformance.record tests/conformance/sessions/plugins.txt ...

A new session needs its head, its ``C`` lines and an empty ``S:`` wherever the client waits. What is recorded is
what we do, not what is right: read the difference before it is committed. Sessions that start programs stay as
they are: nothing real is started by a script.
"""

import itertools
import os
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from mailfront_io.demo import make_certificate
from mailfront_io.ops import Connection, Recv, RecvLine, Send
from mailfront_io.testing import EOF, RESET, Action, Advance, PeerTLS, VirtualClock, run_script
from tests.conformance import session_file
from tests.conformance.outside import scripted, scripted_ports
from tests.conformance.peer import client_context
from tests.conformance.session_file import Act, Expect, Outcome, Session, Wait, escape, escape_name, parse
from tests.conformance.stage import outcome, set_up

SAID = 0.5
"""Virtual seconds after which all is said that the client waits for."""

Place = tuple[int, int]
"""How far a session has come: bytes received, and ends of stream met."""


class Recorder:
    """Plays one session and keeps which output belongs to which place; of output at the same place, a time-out's say,
    the time tells which wait of the client it meets."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent: list[tuple[Place, float, int]] = []
        self._place: Place = (0, 0)
        self._clock = VirtualClock()
        self._started = self._clock.monotonic()

    def record(self, place: Path, certificate: Path) -> tuple[list[bytes], Outcome]:
        """The text of each `Expect`, and the outcome."""
        stage = set_up(self.session, place, certificate, scripted_ports(self.session))
        done, done_write = os.pipe()

        def watched(connection: Connection) -> Any:
            return self._watch(stage.session(connection, done_write))

        played = run_script(
            watched, list(self._script()), clock=self._clock, outside=scripted(self.session), all_read=False
        )
        os.close(done_write)
        with os.fdopen(done) as results:
            result = results.read().strip()
        return self._blocks(played.output), outcome(self.session, place, played.output, result)

    def _script(self) -> Iterator[Action]:
        for step in self.session.steps:
            if isinstance(step, session_file.Send):
                yield from step.pieces()
            elif isinstance(step, Expect):
                yield Advance(SAID)
            elif isinstance(step, Wait):
                yield Advance(step.seconds)
            else:
                yield PeerTLS(client_context(self.session)) if step is Act.TLS else EOF if step is Act.FIN else RESET

    def _watch(self, session: Any) -> Generator[Any, Any, int]:
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                operation = session.send(answer) if error is None else session.throw(error)
            except StopIteration as end:
                return int(end.value)
            answer, error = None, None
            if isinstance(operation, Recv | RecvLine):
                self._note(operation.output)
            try:
                answer = yield operation
            except BaseException as thrown:
                error = thrown
                continue
            if isinstance(operation, Recv | RecvLine):
                received, ends = self._place
                self._place = (received + len(answer), ends + (not answer))
            elif isinstance(operation, Send):
                self._note(operation.data)

    def _note(self, output: bytes) -> None:
        if output:
            self.sent.append((self._place, self._clock.monotonic() - self._started, len(output)))

    def _blocks(self, output: bytes) -> list[bytes]:
        places: list[Place] = []
        until: list[float] = []
        received = ends = 0
        seconds = 0.0
        for step in self.session.steps:
            if isinstance(step, session_file.Send):
                received += len(step.data)
            elif isinstance(step, Expect):
                seconds += SAID
                places.append((received, ends))
                until.append(seconds)
            elif isinstance(step, Wait):
                seconds += step.seconds
            elif step is Act.FIN:
                ends += 1
        blocks = [b""] * len(places)
        at = 0
        for where, when, length in self.sent:
            number = next((n for n, place in enumerate(places) if place >= where), len(places) - 1)
            while number + 1 < len(places) and places[number + 1] == places[number] and until[number] <= when:
                number += 1
            blocks[number] += output[at : at + length]
            at += length
        if blocks:
            blocks[-1] += output[at:]
        return blocks


def _text(key: str, text: str) -> str:
    """A line of a file. What is blank at its end is shown."""
    if text.endswith(" "):
        text = text[:-1] + "\\x20"
    return f"{key} {text}" if text else key


def _lines(block: bytes) -> Iterator[str]:
    *lines, rest = block.split(b"\r\n")
    for line, same in itertools.groupby(lines):
        count = len(list(same))
        yield _text("S:" if count == 1 else f"S*{count}:", escape(line))
    if rest:
        yield f"S! {escape(rest)}"


def rewrite(text: str, certificate: Path) -> str:
    """The file `text` with everything recorded anew."""
    head, *parts = ("\n" + text).split("\n## ")
    return "\n## ".join([head, *(_rewrite_one(part, certificate) for part in parts)])[1:]


def _rewrite_one(part: str, certificate: Path) -> str:
    (session,) = parse("## " + part)
    if session.starts_programs:
        return part  # not in a script
    with tempfile.TemporaryDirectory() as place:
        blocks, found = Recorder(session).record(Path(place), certificate)
    for number, block in enumerate(blocks):
        if not block:
            print(f"{session.name}: nothing is said where the client waits the {number + 1}. time")
    lines: list[str] = []
    waits = False
    for line in part.rstrip("\n").split("\n"):
        if line.startswith(("result:", "L:", "F:")):
            continue
        is_wait = line.startswith(("S:", "S!", "S*"))
        if is_wait and not waits:
            lines += _lines(blocks.pop(0))
        elif not is_wait:
            lines.append(_text(*line.split(" ", 1)) if " " in line else line)
        waits = is_wait
    while lines[-1] == "" or lines[-1].startswith("#"):
        lines.pop()
    lines.append(f"result: {found.result}")
    lines += [_text("L:", line) for line in found.log]
    lines += [f"F: {escape_name(name)} {escape(content)}" for name, content in found.files.items()]
    return "\n".join(lines) + "\n"


def main(paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        certificate = Path(directory) / "certificate.pem"
        make_certificate(str(certificate))
        for path in map(Path, paths):
            text = path.read_text(encoding="latin-1")
            path.write_text(rewrite(text, certificate), encoding="latin-1")


if __name__ == "__main__":
    main(sys.argv[1:])
