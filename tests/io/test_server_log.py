"""The log of a server: forms, ids, what is capped."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailfront_io.log import MAX_LINE
from mailfront_io.server_log import MAX_SESSION_LINES, ServerLog, open_log


class Written:
    """A log's descriptor, and what was written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    written = Written(tmp_path / "log")
    yield written
    os.close(written.descriptor)


def test_lines_have_the_id_of_their_session(written: Written) -> None:
    log = ServerLog("lines", written.descriptor)
    first, second = log.session("mx", "smtp", "192.0.2.1"), log.session("mx", "smtp", None)
    first("one\r\n")
    second("two")
    log("three")
    pid = os.getpid()
    assert written.lines() == [
        f"mailfront[{pid}]: {pid:x}-1 mx from 192.0.2.1",
        f"mailfront[{pid}]: {pid:x}-2 mx from this host",
        f"mailfront[{pid}]: {pid:x}-1 one\\r\\n",
        f"mailfront[{pid}]: {pid:x}-2 two",
        f"mailfront[{pid}]: three",
    ]


def test_json(written: Written) -> None:
    log = ServerLog("json", written.descriptor)
    log.session("mx", "smtp", "192.0.2.1")('a "b"\r\n\udcff\x1b[0m')
    log("x" * (MAX_LINE + 1))
    session, process = map(json.loads, written.lines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", session.pop("time"))
    assert session == {
        "pid": os.getpid(), "session": f"{os.getpid():x}-1", "listener": "mx", "protocol": "smtp",
        "remote": "192.0.2.1",
        "text": 'a "b"\r\n\udcff\x1b[0m',
    }  # fmt: skip
    assert process["text"] == "x" * MAX_LINE + "…"
    assert written.path.read_bytes().isascii() and b"\x1b" not in written.path.read_bytes()


def test_the_original_s_lines(written: Written) -> None:
    log = ServerLog("original", written.descriptor)
    session = log.session("mx", "smtp", "192.0.2.1")
    session("one\r")
    assert session.id == ""
    assert written.lines() == [f"mailfront[{os.getpid()}]: one?"]


@pytest.mark.parametrize("form", ["lines", "json", "original"])
def test_a_session_cannot_flood_it(form: str, written: Written) -> None:
    log = ServerLog(form, written.descriptor)
    write = log.session("mx", "smtp", None)
    for _ in range(3 * MAX_SESSION_LINES):
        write("flood" * MAX_LINE)
    lines = written.lines()
    assert len(lines) == MAX_SESSION_LINES
    assert max(map(len, lines)) < MAX_LINE + 200
    assert "this session has written too much" in (json.loads(lines[-1])["text"] if form == "json" else lines[-1])
    log.session("mx", "smtp", None)("another")
    assert "another" in written.lines()[-1]


def test_a_file_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for _ in range(2):
        log = open_log("lines", str(path))
        log("hello")
        os.close(log._descriptor)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text().splitlines()) == 2


def test_nobody_reads_it(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    for form in ("lines", "json", "original"):
        log = ServerLog(form, write)
        log("x")
        log.session("mx", "smtp", None)("y")
    os.close(write)
