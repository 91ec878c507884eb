"""What is counted, and its text: read by the parser of Prometheus' own library."""

import os
import tempfile
import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mailfront_io import metrics
from mailfront_io.metrics import MECHANISMS, OF_LISTENERS, OF_SERVER, SECONDS, Page, ProcessLock, Totals
from mailfront_io.ops import Connection
from mailfront_io.session import Session

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every sample of `text`, without the prefix."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name.removeprefix("mailfront_"), frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


MX = {"listener": "mx", "protocol": "smtp"}


@pytest.fixture
def page() -> Page:
    return Page([("mx", "smtp"), ("users", "pop3"), ("mx", "smtp")])


def told(*pages: Page, totals: Totals | None = None) -> str:
    return (totals or Totals()).text(pages, 2)


def test_everything_has_its_type_and_its_words(page: Page) -> None:
    families = {family.name: family for family in text_string_to_metric_families(told(page))}
    declared = {f"mailfront_{family.name}".removesuffix("_total"): family for family in (*OF_LISTENERS, *OF_SERVER)}
    assert set(families) == set(declared)
    for name, family in families.items():
        assert (family.type, family.documentation) == (declared[name].kind, declared[name].doc)


def test_each_thing_is_counted_where_it_belongs(page: Page) -> None:
    meter = page.meter("mx", "smtp")
    session = Session(Connection(None), {}, lambda text: None)  # type: ignore[arg-type]
    session.bytes_in, session.bytes_out = 5, 7
    meter.connected()
    meter.connected()
    meter.disconnected()
    meter.refused("max_per_network")
    for code in (250, 451, 554, 250):
        meter.message(code)
    meter.recipient_refused()
    meter.authentication("plain", "ok")
    meter.handshake("failed")
    meter.session_ended(session)
    session.ended = "quit"
    meter.session_ended(session)
    counted = {key: number for key, number in samples(told(page)).items() if number and ("listener", "mx") in key[1]}
    mx = MX.items()
    assert counted == {
        ("connections", frozenset(mx)): 1,
        ("connections_total", frozenset(mx)): 2,
        ("connections_refused_total", frozenset({**MX, "reason": "max_per_network"}.items())): 1,
        ("messages_total", frozenset({**MX, "result": "accepted"}.items())): 2,
        ("messages_total", frozenset({**MX, "result": "deferred"}.items())): 1,
        ("messages_total", frozenset({**MX, "result": "refused"}.items())): 1,
        ("recipients_refused_total", frozenset(mx)): 1,
        ("authentications_total", frozenset({**MX, "mechanism": "PLAIN", "result": "ok"}.items())): 1,
        ("tls_handshakes_total", frozenset({**MX, "result": "failed"}.items())): 1,
        ("sessions_ended_total", frozenset({**MX, "reason": "aborted"}.items())): 1,
        ("sessions_ended_total", frozenset({**MX, "reason": "quit"}.items())): 1,
        ("received_bytes_total", frozenset(mx)): 10,
        ("sent_bytes_total", frozenset(mx)): 14,
    }


def test_the_version_is_the_one_that_runs(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the package is being replaced there is none on the disk, and afterwards another."""
    before = told(page)

    def gone(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(metrics, "version", gone)
    assert told(page) == before
    assert metrics._own_version() == "unknown"


def test_protocols_without_mail_have_no_metrics_of_it(page: Page) -> None:
    names = {name for name, labels in samples(told(page)) if ("protocol", "pop3") in labels}
    assert "connections_total" in names and not names & {"messages_total", "backend_seconds_count"}


def test_the_histogram(page: Page) -> None:
    meter = page.meter("mx", "smtp")
    for seconds in (0.0, 0.005, 0.2, 7.0, 10_000.0):
        meter.backend(seconds)
    buckets = [value(told(page), "backend_seconds_bucket", **MX, le=f"{bound:g}") for bound in SECONDS]
    assert buckets == [2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4]
    assert value(told(page), "backend_seconds_bucket", **MX, le="+Inf") == 5
    assert value(told(page), "backend_seconds_count", **MX) == 5
    assert value(told(page), "backend_seconds_sum", **MX) == pytest.approx(10_007.205)


def test_several_processes_are_added_up_and_what_is_gone_stays_counted(page: Page) -> None:
    other, totals = Page([("mx", "smtp")]), Totals()
    for each in (page, other):
        each.meter("mx", "smtp").connected()
        each.meter("mx", "smtp").backend(1.0)
    totals.count("workers_restarted_total")
    totals.count("reloads_total", "ok")
    before = told(page, other, totals=totals)
    assert value(before, "connections_total", **MX) == value(before, "connections", **MX) == 2
    totals.keep(other)
    other.close()
    after = told(page, totals=totals)
    assert value(after, "connections_total", **MX) == 2
    assert value(after, "connections", **MX) == 1
    assert value(after, "backend_seconds_count", **MX) == value(after, "backend_seconds_sum", **MX) == 2
    assert value(after, "workers_restarted_total") == value(after, "reloads_total", result="ok") == 1
    assert value(after, "reloads_total", result="failed") == 0
    assert value(after, "workers") == 2


@given(st.lists(st.text(max_size=40), max_size=20))
def test_what_clients_say_is_no_label(mechanisms: list[str]) -> None:
    page = Page([("mx", "smtp")])
    for mechanism in (*mechanisms, *MECHANISMS):
        page.meter("mx", "smtp").authentication(mechanism, "failed")
    seen = {dict(labels)["mechanism"] for name, labels in samples(told(page)) if name == "authentications_total"}
    assert seen == set(MECHANISMS)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_of_a_listener_is_read_as_it_was(name: str) -> None:
    text = told(Page([(name, "smtp")]))
    lines = [line for line in text.split("\n") if line.startswith("mailfront_connections_total{")]
    assert len(lines) == 1
    read = next(f for f in text_string_to_metric_families(lines[0] + "\n")).samples[0].labels["listener"]
    assert read == name


def test_threads_lose_nothing(page: Page) -> None:
    meter = page.meter("mx", "smtp")

    def count() -> None:
        for _ in range(5000):
            meter.message(250)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(told(page), "messages_total", **MX, result="accepted") == 40_000


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
def test_a_lock_needs_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service may have none that it can write to."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    lock = ProcessLock()
    with lock:
        pass
    lock.close()


def test_processes_lose_nothing(tmp_path: Path) -> None:
    """As under the fork driver: each session is a child."""
    page = Page([("mx", "smtp")])
    page.lock = lock = ProcessLock()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            meter = page.meter("mx", "smtp")
            for _ in range(2000):
                meter.message(250)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    lock.close()
    assert value(told(page), "messages_total", **MX, result="accepted") == 8000
