"""What is known of a connection: settings and their assignments, numbers, facts."""

from collections.abc import Callable

import pytest

from mailfront_io.auth.store import Identity
from mailfront_io.ops import Connection
from mailfront_io.session import (
    LARGEST_NUMBER,
    Path,
    Session,
    facts_above,
    fold,
    parse_number,
    parse_number_as_in_c,
)
from mailfront_io.testing import VirtualClock


def session(**environment: str) -> Session:
    return Session(Connection(VirtualClock()), environment, lambda line: None)


def sharing(**environment: str) -> Session:
    """A session of a server, whose settings are those of all."""
    facts = facts_above(environment)({"TCPREMOTEIP": "192.0.2.1"})
    return Session(Connection(VirtualClock()), environment, lambda line: None, facts=facts)


def test_of_a_server_facts_come_before_what_its_connections_share() -> None:
    known = sharing(A="environment", TCPREMOTEIP="203.0.113.9")
    assert (known.getenv("TCPREMOTEIP"), known.getenv("A"), known.getenv("B")) == ("192.0.2.1", "environment", None)
    known.putenv("A", "first")
    known.putenv("A", "second")
    known.putenv("B", "")
    assert (known.getenv("A"), known.getenv("B"), known.getenv("C")) == ("first", "", None)
    assert (known.getenv("TCPREMOTEIP"), known.remote_ip) == ("192.0.2.1", "192.0.2.1")
    known.reset_env()
    assert (known.getenv("A"), known.getenv("B"), known.settings_changed) == ("environment", None, 4)


def test_a_server_session_has_the_settings_of_who_logged_in_until_it_logs_out() -> None:
    known = sharing(A="environment", HOME="/root")
    known.putenv("B", "assigned")
    known.log_in(Identity("ann", directory="/home/ann"))
    assert (known.getenv("HOME"), known.getenv("A"), known.getenv("B")) == ("/home/ann", "environment", "assigned")
    known.log_out()
    assert (known.getenv("HOME"), known.getenv("A"), known.getenv("B")) == ("/root", "environment", "assigned")


@pytest.mark.parametrize("make", [session, sharing])
def test_settings_that_are_removed_stay_so(make: Callable[..., Session]) -> None:
    known = make(SECRET="x", A="environment")
    known.remove_settings(("SECRET",))
    known.putenv("B", "assigned")
    known.log_out()
    assert (known.getenv("SECRET"), known.getenv("A"), known.getenv("B")) == (None, "environment", "assigned")
    assert "SECRET" not in known.exported_env()


@pytest.mark.parametrize("make", [session, sharing])
def test_what_a_proxys_address_may_do_its_clients_may_not_whatever_follows(make: Callable[..., Session]) -> None:
    known = make(RELAYCLIENT="", A="environment")
    known.putenv("RELAYCLIENT", "")
    known.assume({"REMOTEIP": "198.51.100.7", "REMOTEHOST": ""})
    assert (known.getenv("RELAYCLIENT"), known.remote_ip, known.getenv("A")) == (None, "198.51.100.7", "environment")
    known.log_out()  # as at STARTTLS
    assert (known.getenv("RELAYCLIENT"), known.remote_ip, known.getenv("A")) == (None, "198.51.100.7", "environment")


def test_assignments_shadow_the_environment_and_the_first_wins() -> None:
    known = session(A="environment", B="environment")
    assert known.getenv("A") == "environment"
    assert known.getenv("C") is None
    known.putenv("A", "first")
    known.putenv("A", "second")
    known.putenv("C", "")
    assert (known.getenv("A"), known.getenv("B"), known.getenv("C")) == ("first", "environment", "")
    assert known.exported_env() == {"A": "second", "B": "environment", "C": ""}
    known.reset_env()
    assert (known.getenv("A"), known.getenv("C")) == ("environment", None)
    assert known.exported_env() == {"A": "environment", "B": "environment"}


@pytest.mark.parametrize(
    ("environment", "assigned", "smallest", "first"),
    [
        (None, [], 0, None), ("5", [], 5, 5), ("0", [], 0, 0), ("x", [], 0, None), ("5", ["3"], 3, 3),
        ("5", ["7"], 5, 7),
        ("5", ["0"], 5, 0), ("5", ["x"], 5, 5), (None, ["0", "9", "4"], 4, 0),
        (None, ["x", "", "9"], 9, 9), ("-5", [], 0, None),
        ("+5", ["1_0"], 0, None), (None, ["\u0665", "0"], 0, 0), ("9" * 20, ["8"], 8, 8),
        ("9" * 19, [], int("9" * 19), int("9" * 19)),
    ],
)  # fmt: skip
def test_numbers(environment: str | None, assigned: list[str], smallest: int, first: int | None) -> None:
    known = session(**({} if environment is None else {"N": environment}), OTHER="1")
    for value in assigned:
        known.putenv("N", value)
    assert known.smallest_number("N") == smallest
    assert known.first_number("N") == first


def test_facts_are_those_of_the_protocol() -> None:
    known = session(PROTO="SSL", SSLREMOTEIP="192.0.2.1", TCPREMOTEIP="192.0.2.2", SSLREMOTEHOST="", SSLLOCALHOST="mx")
    assert (known.link, known.remote_ip, known.remote_host, known.local_host) == ("SSL", "192.0.2.1", None, "mx")
    assert (known.local_ip, known.remote_info) == (None, None)
    assert session(PROTO="", TCPREMOTEIP="192.0.2.2").remote_ip == "192.0.2.2"
    assert session(TCPREMOTEINFO="joe").remote_info == "joe"


def test_a_servers_own_facts_are_the_only_ones() -> None:
    environment = {"TCPREMOTEIP": "203.0.113.9", "SETTING": "1"}
    known = Session(Connection(VirtualClock()), environment, lambda line: None, facts={"TCPREMOTEIP": "192.0.2.1"})
    assert known.remote_ip == known.getenv("TCPREMOTEIP") == "192.0.2.1"
    assert known.exported_env() == {"TCPREMOTEIP": "192.0.2.1", "SETTING": "1"}


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\x1b[2J", "\x7f", "\x85", ""])
def test_a_fact_with_control_bytes_is_none(value: str) -> None:
    assert session(TCPREMOTEHOST=value).remote_host is None


def test_strings_and_numbers_are_two_name_spaces() -> None:
    known = session()
    known.strings["x"] = "1"
    known.numbers["x"] = 2
    assert (known.strings["x"], known.numbers["x"]) == ("1", 2)
    assert not known.authenticated
    known.numbers["authenticated"] = 1
    assert known.authenticated


@pytest.mark.parametrize(
    ("address", "domain"),
    [("a@b", "b"), ("a", ""), ("", ""), ("a@", ""), ("@b", "b"), ("a@b@c", "c"), ('"a@b"@c', "c")],
)
def test_the_domain_of_a_path(address: str, domain: str) -> None:
    assert Path(address, []).domain == domain


def test_folding_is_for_ascii_only() -> None:
    assert fold("ABCxyz-\u212a\u0130\u00c9") == "abcxyz-\u212a\u0130\u00c9"


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("007", 7), ("9" * 19, int("9" * 19)), ("9" * 20, None), (None, None)]
)
def test_a_number_is_digits(text: str | None, number: int | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "number", "whole"),
    [
        *(("0", 0, 0), ("007", 7, 7), ("+5", 5, 5), (" \t\v5", 5, 5), ("-0", 0, 0)),
        *(("5 ", 5, None), ("5x", 5, None), ("1_0", 1, None), ("0x10", 0, None), ("1e3", 1, None)),
        *((text, None, None) for text in ("", "x", "+", "+-5", "- 1", "\u0665", "\xa05", None)),
        *((text, LARGEST_NUMBER, LARGEST_NUMBER) for text in ("-1", "9" * 20, "9" * 5000, str(1 << 64))),
        (str((1 << 64) - 2), (1 << 64) - 2, (1 << 64) - 2), ("0" * 5000 + "7", 7, 7),
    ],
)  # fmt: skip
def test_a_number_as_in_c(text: str | None, number: int | None, whole: int | None) -> None:
    assert parse_number_as_in_c(text) == number
    assert parse_number_as_in_c(text, whole=True) == whole


def test_a_setting_in_place_of_the_first_assignment() -> None:
    known = session(X="9")
    known.setenv("X", "1", overwrite=False)
    assert known.getenv("X") == "1"
    known.putenv("X", "2")
    known.setenv("X", "3", overwrite=False)
    assert (known.getenv("X"), known.exported_env()["X"]) == ("1", "2")
    known.setenv("X", "4", overwrite=True)
    assert (known.getenv("X"), known.exported_env()["X"]) == ("2", "4")
