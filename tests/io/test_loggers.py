"""The log as loggers of the standard library, for programs with a server in them."""

import asyncio
import logging
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from mailfront_io.drivers import asyncio as asyncio_driver
from mailfront_io.drivers import blocking
from mailfront_io.drivers import trio as trio_driver
from mailfront_io.drivers.listener import Listener
from mailfront_io.log import MAX_LINE
from mailfront_io.loggers import SERVER, SESSION, StandardLog
from mailfront_io.ops import Connection
from mailfront_io.server import session_factory
from mailfront_io.server_log import MAX_SESSION_LINES
from mailfront_io.service import service_from_line

Serve = Callable[..., None]


def serve_asyncio(listener: Listener, **options: Any) -> None:
    asyncio.run(asyncio_driver.serve([listener], **options))


def serve_trio(listener: Listener, **options: Any) -> None:
    async def main() -> None:
        await trio_driver.serve([listener], **options)

    trio.run(main)


def serve_blocking(listener: Listener, **options: Any) -> None:
    blocking.serve([listener], **options)


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    yield
    for name in (SERVER, SESSION, "mailfront"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.parametrize("serve", [serve_asyncio, serve_trio, serve_blocking])
def test_a_session_and_its_records(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailfront")
    log = StandardLog()
    service = service_from_line(["smtp", "discard", "accept"], {}, log)
    listening = socket.create_server(("127.0.0.1", 0))
    host, port = listening.getsockname()
    listener = Listener(listening, session_factory(service, "mx.example.org", "mx", log))
    stops: list[Callable[[], None]] = []
    started = threading.Event()

    def on_started(stop: Callable[[], None]) -> None:
        stops.append(stop)
        started.set()

    server = threading.Thread(target=serve, args=(listener,), kwargs={"on_started": on_started, "report": log.report})
    server.start()
    assert started.wait(90)
    for number in range(2):
        with smtplib.SMTP(host, port, timeout=90) as client:
            client.ehlo("x")
            client.mail(f"a{number}@b.example")
    stops[0]()
    server.join(90)

    records = [record for record in caplog.records if record.name.startswith("mailfront")]
    assert {record.name for record in records} == {SESSION}
    ids = list(dict.fromkeys(vars(record)["session"] for record in records))
    assert len(ids) == 2
    for record in records:
        facts = vars(record)
        assert (facts["listener"], facts["protocol"], facts["remote"]) == ("mx", "smtp", "127.0.0.1")
        assert record.levelno == logging.INFO
    for number, name in enumerate(ids):
        texts = [record.getMessage() for record in records if vars(record)["session"] == name]
        assert texts[0] == "mx from 127.0.0.1"
        assert any(text.startswith(f"MAIL FROM:<a{number}@b.example>") for text in texts)
        assert texts[-1].startswith("bytes in: ")


def test_levels_are_the_programs(caplog: pytest.LogCaptureFixture) -> None:
    log = StandardLog()
    caplog.set_level(logging.DEBUG, "mailfront")
    write = log.session("mx", "smtp", None)
    for text in ("Debug: Calling plugin: accept", "RCPT TO:<a@b>", "Error 1a2b: plugin x: ValueError: y", "100% %s"):
        write(text)
    assert [(record.levelname, record.getMessage()) for record in caplog.records[1:]] == [
        ("DEBUG", "Debug: Calling plugin: accept"),
        ("INFO", "RCPT TO:<a@b>"),
        ("ERROR", "Error 1a2b: plugin x: ValueError: y"),
        ("INFO", "100% %s"),
    ]
    caplog.clear()
    logging.getLogger(SESSION).setLevel(logging.ERROR)
    write("RCPT TO:<a@b>")
    write("Error again")
    log("Refused a connection from 192.0.2.1: 1000 connections are open")
    assert [record.name for record in caplog.records] == [SESSION, SERVER]


def test_nothing_is_unescaped_and_floods_are_capped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailfront")
    log = StandardLog()
    write = log.session("mx", "smtp", None)
    write("a\r\nb\x1b\udcff\\")
    log("c\n")
    for _ in range(2 * MAX_SESSION_LINES):
        write("x" * 3 * MAX_LINE)
    texts = [record.getMessage() for record in caplog.records]
    assert texts[1:3] == ["a\\r\\nb\\x1b\\udcff\\\\", "c\\n"]
    assert len(texts) == MAX_SESSION_LINES + 1 and max(map(len, texts)) <= MAX_LINE + 2
    assert texts[-1] == "… this session has written too much; what follows is left out"


def test_exceptions_are_events_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailfront")
    log = StandardLog()
    fault = ValueError("a\nb")

    async def faulty(connection: Connection) -> int:
        raise fault

    ours, theirs = socket.socketpair()
    with theirs:
        try:
            blocking.serve_connection(ours, faulty)
        except ValueError as error:
            log.report(error)
    [record] = caplog.records
    assert (record.name, record.levelname, vars(record)["error"]) == (SERVER, "ERROR", fault)
    assert record.getMessage().startswith("Error: ValueError: a\\nb (test_loggers.py:")


def test_who_configures_nothing_hears_nothing() -> None:
    program = (
        "from mailfront_io.loggers import StandardLog\n"
        "log = StandardLog()\n"
        "log('Error: x')\n"
        "log.session('mx', 'smtp', None)('Error: y')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_servers_that_do_not_ask_for_it_do_not_import_it() -> None:
    """What they are made of: asyncio alone, of the drivers, imports logging by itself."""
    program = (
        "import sys\n"
        "import mailfront_io.server_log, mailfront_io.service, mailfront_io.supervisor, mailfront_io.monitor\n"
        "import mailfront_io.drivers.blocking, mailfront_io.frontends.smtp, mailfront_io.frontends.pop3\n"
        "assert 'mailfront_io.loggers' not in sys.modules\n"
        "assert 'logging' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
