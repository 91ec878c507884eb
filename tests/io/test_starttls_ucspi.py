"""The plugin starttls-ucspi where its parent is none, or is not wanted; the machine's part in it."""

import pytest

from mailfront_io.ops import Connection, StartParentTLS, TLSFailed
from mailfront_io.testing import EOF, run_script
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.smtp import SMTPServer
from mailfront_proto.smtp.events import StartTLS
from mailfront_proto.smtp.profile import COMPAT, DEFAULT
from tests.certificates import server_context
from tests.front import Front

PARENT = {"UCSPITLS": "", "SSLCTLFD": "10", "SSLREADFD": "11", "SSLWRITEFD": "12"}
HELO = b"EHLO x\r\n"


def test_without_a_parent_it_does_nothing() -> None:
    output = Front("starttls-ucspi", "accept").say(HELO, b"STARTTLS\r\n")
    assert b"250-STARTTLS" not in output and output.endswith(b"500 5.5.1 Not implemented.\r\n")


def test_with_one_it_is_listed_at_its_place_and_once() -> None:
    output = Front("starttls-ucspi", "counters", env={**PARENT, "DATABYTES": "5"}).say(HELO)
    assert output.splitlines()[2:4] == [b"250-STARTTLS", b"250-SIZE 5"]
    assert output.count(b"STARTTLS") == 1


@pytest.mark.parametrize("name", ["SSLCTLFD", "SSLREADFD", "SSLWRITEFD"])
@pytest.mark.parametrize("value", ["", "-1", "x", "2147483648", "99999999999999999999"])
def test_h92_a_descriptor_that_is_none(name: str, value: str) -> None:
    front = Front("starttls-ucspi", "accept", env={**PARENT, name: value, "MAILFRONT_PROFILE": "compat"})
    assert b"STARTTLS" not in front.say(HELO)
    assert f"starttls-ucspi: STARTTLS cannot be had: ${name} is no descriptor" in front.log


def test_it_takes_the_place_of_tls_of_our_own() -> None:
    front = Front("starttls-ucspi", "accept", env={**PARENT, "TLS_IMMEDIATE": ""}, tls=server_context())
    assert front.say(HELO).startswith(b"220 ")


def test_only_a_program_that_serves_one_connection_can_do_it() -> None:
    front = Front("starttls-ucspi", "accept", env=PARENT)
    output = front.say(HELO, b"STARTTLS\r\n", HELO)
    assert output.endswith(b"220 2.0.0 Ready to start TLS\r\n")  # and nothing goes on in plain text
    failed = "TLS handshake failed: only a program that serves one connection can leave TLS to its parent"
    assert failed in front.log


async def asks(connection: Connection) -> int:
    try:
        await StartParentTLS(10, 11, 12)
    except TLSFailed:
        return 7
    return 0


def test_the_scripted_driver_has_no_parent() -> None:
    assert run_script(asks, [EOF], all_read=False).result == 7


# -- the machine -------------------------------------------------------------------------------------------


def upgraded(plain: bytes, inside: bytes = b"") -> tuple[SMTPServer, bytes]:
    """A machine that has got `plain` before its STARTTLS was accepted; what it has said inside TLS."""
    machine = SMTPServer("mx.example.org", COMPAT)
    machine.offers_starttls = machine.refuses_inside_tls = True
    machine.receive_data(plain)
    machine.next_event()
    machine.accept()
    assert type(machine.next_event()) is StartTLS
    machine.accept()
    machine.data_to_send()
    refusal = machine.tls_established()
    assert (refusal is not None) == (plain.upper() != b"STARTTLS\r\n")
    if inside:
        machine.receive_data(inside)
        machine.next_event()
    return machine, machine.data_to_send()


LATE = b"500 5.5.1 Unexpected pipelined commands following STARTTLS\r\n"


@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"N", b"MAIL FROM:<a@b>\r\nNOOP\r\n", b"\x16\x03\x01", b"\r\n"])
def test_h31_what_comes_in_plain_text_is_thrown_away(behind: bytes) -> None:
    machine, said = upgraded(b"STARTTLS\r\n" + behind, b"NOOP\r\n")
    assert said == LATE + b"250 2.3.0 OK\r\n"
    assert machine.in_tls


def test_without_plain_text_nothing_is_refused() -> None:
    assert upgraded(b"STARTTLS\r\n", b"NOOP\r\n")[1] == b"250 2.3.0 OK\r\n"


def test_h31_text_that_comes_between_command_and_answer_is_thrown_away_too() -> None:
    machine = SMTPServer("mx.example.org", COMPAT)
    machine.offers_starttls = machine.refuses_inside_tls = True
    machine.next_event()
    machine.accept()
    machine.receive_data(b"STARTTLS\r\n")
    assert type(machine.next_event()) is StartTLS
    machine.receive_data(b"NOOP\r\n")
    machine.accept()
    assert machine.data_to_send().endswith(b"220 2.0.0 Ready to start TLS\r\n")
    machine.tls_established()
    assert machine.data_to_send() == LATE


def test_otherwise_plain_text_is_refused_at_once() -> None:
    machine = SMTPServer("mx.example.org", DEFAULT)
    machine.offers_starttls = True
    machine.next_event()
    machine.accept()
    machine.receive_data(b"EHLO x\r\nSTARTTLS\r\nNOOP\r\n")
    machine.next_event()
    machine.accept()
    machine.next_event()
    assert machine.data_to_send().endswith(b"554 5.5.0 Unexpected pipelined commands following STARTTLS\r\n")
    with pytest.raises(LocalProtocolError):
        machine.tls_established()
