"""What the DNS says, and who says it. (Many records and odd names through real sockets: tests/io/test_ops.py.)"""

import socket
import string
import threading
import time

import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.drivers import blocking, dns_messages
from mailfront_io.drivers.dns_messages import Answer, NotOurs, Truncated, Unusable, make_question, read_answer
from mailfront_io.ops import Connection, DeadlineExceeded
from mailfront_io.peers import Datagram
from tests.io.helpers import answers


def question(name: str = "mail.example", kind: str = "A") -> dns.message.QueryMessage:
    made = make_question(name, kind)
    assert made is not None
    return made


def test_h68_records_beyond_the_cap_are_left_out() -> None:
    for name, kind, most in (("many.example", "A", 64), ("huge.example", "TXT", 64), ("long.example", "TXT", 40)):
        asked = question(name, kind)
        answer = read_answer(asked, answers(asked).to_wire(max_size=65535))
        assert len(answer.records) == most
    bound = dns_messages.MAX_ANSWER_BYTES
    asked = question("big.example", "TXT")
    response = dns.message.make_response(asked)
    texts = [f'"{i:03}{"x" * 252}" ' * 16 for i in range(14)]
    response.answer.append(dns.rrset.from_text_list(asked.question[0].name, 60, "IN", "TXT", texts))
    records = read_answer(asked, response.to_wire(max_size=65535)).records
    assert bound <= sum(map(len, records)) < bound + 16 * 255


label = st.binary(min_size=1, max_size=63)


@given(st.lists(label, min_size=1, max_size=3))
def test_h68_odd_host_names_are_left_out(labels: list[bytes]) -> None:
    asked = question("mail.example", "MX")
    host = dns.name.Name([*labels, b""])
    response = dns.message.make_response(asked)
    wire = b"\0\7" + (host.to_wire() or b"")
    rdata = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.MX, wire, 0, len(wire))
    response.answer.append(dns.rrset.from_rdata(asked.question[0].name, 60, rdata))
    records = read_answer(asked, response.to_wire()).records
    plain = set((string.ascii_letters + string.digits + "-_").encode())
    if plain.issuperset(b"".join(labels)):
        assert records == ((7, b".".join(labels).decode().lower()),)
    else:
        assert records == ()


@given(st.binary(max_size=600), st.binary(max_size=60), st.integers(0, 80))
def test_h68_no_message_does_harm(noise: bytes, patch: bytes, where: int) -> None:
    """Noise, and answers with some of their bytes replaced: an answer, or one of three exceptions."""
    asked = question()
    wire = answers(asked).to_wire()
    for data in (noise, wire[:2] + noise, wire[:where] + patch + wire[where + len(patch) :]):
        try:
            answer = read_answer(asked, data)
        except (NotOurs, Truncated, Unusable):
            continue
        assert isinstance(answer, Answer)
        assert all(isinstance(record, str) and socket.inet_aton(record) for record in answer.records)


@given(st.text(max_size=300))
def test_h68_any_name_can_be_asked_for(name: str) -> None:
    """Names come from HELO and from addresses. A question can be sent, or there is none."""
    asked = make_question(name, "TXT")
    if asked is not None:
        assert len(asked.to_wire()) < 512
        assert not set(name) & set(" \\\r\n\0\"()@")


def test_h68_an_answer_to_another_question_is_not_ours() -> None:
    asked, other = question(), question("other.example")
    other.id = asked.id
    try:
        read_answer(asked, answers(other).to_wire())
    except NotOurs:
        pass
    else:
        raise AssertionError


def test_h50_an_answer_from_another_address_is_none() -> None:
    """The right bytes from the wrong port, however often, are not even looked at."""
    seen: list[bytes] = []

    async def session(connection: Connection) -> int:
        try:
            await Datagram(server.getsockname(), b"ask", seen.append, connection.clock.monotonic() + 0.3)
        except DeadlineExceeded:
            return 1
        return 0

    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours, theirs = socket.socketpair()
    with server, stranger, ours, theirs:
        for bound in (server, stranger):
            bound.bind(("127.0.0.1", 0))
        server.settimeout(5)
        def forge() -> None:
            _, asker = server.recvfrom(100)
            for _ in range(50):
                stranger.sendto(b"right", asker)
                time.sleep(0.001)

        thread = threading.Thread(target=forge)
        thread.start()
        assert blocking.serve_connection(ours, session) == 1
        thread.join()
    assert seen == []
