"""CVM packets: what is on the wire in both versions, what is refused, and that both roles agree."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_proto.cvm import Code, CVMRequest, CVMResponse, Fact, Verdict, split_account
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.secret import Secret

JOE = CVMRequest(b"joe", b"example.org", Secret(b"secret"))
EIGHT = bytes(range(1, 9))

# The example of the protocol's description, and the same in version 1
USERNAME = CVMRequest(b"username", b"localhost", Secret(b"password"), random_bytes=EIGHT)
EXAMPLE = bytes.fromhex(
    "0208 0102 0304 0506 0708 0108 7573 6572 6e61 6d65 0209 6c6f 6361 6c68 6f73 7403 0870 6173 7377 6f72 6400"
)

REQUESTS = [
    (USERNAME, EXAMPLE),
    (JOE, b"\2\0\1\3joe\2\x0bexample.org\3\6secret\0"),
    (CVMRequest(b"joe"), b"\2\0\1\3joe\0"),
    (CVMRequest(b"joe", b""), b"\2\0\1\3joe\2\0\0"),
    (CVMRequest(b"joe", b"", Secret(b"")), b"\2\0\1\3joe\2\0\3\0\0"),
    (CVMRequest(b"joe", None, None, Secret(b"shared")), b"\2\0\1\3joe\4\6shared\0"),
    (
        CVMRequest(b"joe", b"", challenge=b"<1@x>", response=Secret(b"\0" * 16), response_type=b"CRAM-MD5"),
        b"\2\0\1\3joe\2\0\5\5<1@x>\6\x10" + b"\0" * 16 + b"\7\x08CRAM-MD5\0",
    ),
    (replace(JOE, version=1), b"\1joe\0example.org\0secret\0\0"),
    (CVMRequest(b"joe", b"", version=1), b"\1joe\0\0\0"),
    (CVMRequest(b"joe", b"", challenge=b"<1@x>", response=Secret(b"0f"), version=1), b"\1joe\0\0<1@x>\0" + b"0f\0\0"),
]


@pytest.mark.parametrize(("request_", "packet"), REQUESTS)
def test_requests_on_the_wire(request_: CVMRequest, packet: bytes) -> None:
    assert request_.encode() == packet
    assert CVMRequest.parse(packet) == request_


FACTS = ((Fact.USERNAME, b"joe"), (Fact.USER_ID, b"500"), (Fact.SUPPLEMENTARY_GROUP_ID, b"5"), (8, b"6"), (200, b""))
RESPONSES = [
    (CVMResponse(0, FACTS), JOE, b"\0\0\1\3joe\2\3" + b"500\x08\1" + b"5\x08\1" + b"6\xc8\0\0"),
    (CVMResponse(0, FACTS[:2]), USERNAME, b"\0\x08" + EIGHT + b"\1\3joe\2\3500\0".replace(b"\3500", b"\3" + b"500")),
    (CVMResponse(0, FACTS), replace(JOE, version=1), b"\0\1joe\0\2" + b"500\0\x08" + b"5\0\x08" + b"6\0\xc8\0\0"),
    (CVMResponse(100), JOE, b"d\0\0"),
    (CVMResponse(100), replace(JOE, version=1), b"d\0"),
    (CVMResponse(100), USERNAME, b"d\x08" + EIGHT + b"\0"),
    (CVMResponse(100, ((Fact.OUT_OF_SCOPE, b"1"),)), JOE, b"d\0\x10\1" + b"1\0"),
    (CVMResponse(4), JOE, b"\4\0\0"),
]


@pytest.mark.parametrize(("response", "request_", "packet"), RESPONSES)
def test_responses_on_the_wire(response: CVMResponse, request_: CVMRequest, packet: bytes) -> None:
    assert response.encode(request_) == packet
    assert CVMResponse.parse(packet, request_) == response


def test_a_request_that_could_not_be_read_is_answered_all_the_same() -> None:
    assert CVMResponse(Code.BAD_CLIENT_DATA).encode(None) == b"\2\0\0"


# -- there and back --------------------------------------------------------------------------------------

VALUES = st.binary(max_size=60)
NAMES = VALUES.map(lambda data: bytes(byte for byte in data if byte >= 32 and byte != 127))
TEXTS = VALUES.map(lambda data: data.replace(b"\0", b""))
SECRETS = st.none() | TEXTS.map(Secret)


@st.composite
def requests(draw: st.DrawFn) -> CVMRequest:
    """Whatever can be said."""
    account, domain = draw(NAMES.filter(bool)), draw(NAMES)
    if draw(st.booleans()):
        challenge, response_type = draw(st.tuples(*[st.none() | VALUES] * 2))
        response = draw(st.none() | VALUES.map(Secret))
        chance = draw(st.binary(max_size=30))
        given_domain = draw(st.sampled_from([domain, None]))
        return CVMRequest(
            account, given_domain, draw(SECRETS), draw(SECRETS), challenge, response, response_type, chance
        )
    if draw(st.booleans()):
        given = draw(st.tuples(*[TEXTS.filter(bool)] * 2))
        return CVMRequest(account, domain, challenge=given[0], response=Secret(given[1]), version=1)
    password = draw(st.none() | TEXTS.filter(bool).map(Secret))
    return CVMRequest(account, domain, password, version=1)


@st.composite
def responses(draw: st.DrawFn) -> CVMResponse:
    """A success with facts, or an error."""
    code = draw(st.sampled_from([0, 0, 0, 1, 100, 255]))
    numbers = draw(st.lists(st.integers(1, 255), max_size=6, unique=True)) if code == 0 else []
    text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
    return CVMResponse(code, tuple((number, draw(text).encode()[:60]) for number in numbers))


@given(requests())
def test_requests_read_back(request_: CVMRequest) -> None:
    packet = request_.encode()
    assert len(packet) <= 512
    assert CVMRequest.parse(packet) == request_
    for wrong in (packet[:-1], packet + b"\0", packet + b"x", packet[1:]):
        assert CVMRequest.parse(wrong) != request_


@given(responses(), requests())
def test_responses_read_back(response: CVMResponse, request_: CVMRequest) -> None:
    packet = response.encode(request_)
    assert CVMResponse.parse(packet, request_) == response
    if response.code == 0:
        for wrong in (packet[:-1], packet + b"\0", packet + b"x", b""):
            with pytest.raises(RemoteProtocolError):
                CVMResponse.parse(wrong, request_)
    if request_.version == 2:
        with pytest.raises(RemoteProtocolError, match="random bytes"):
            CVMResponse.parse(packet, replace(request_, random_bytes=request_.random_bytes + b"x"))


def packets(*beginnings: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, and short ones with these in front."""
    return st.binary(max_size=600) | st.builds(bytes.__add__, st.sampled_from(beginnings), st.binary(max_size=60))


@given(packets(b"\1", b"\2", b"\2\0\1\3joe"))
def test_any_packet_is_a_request_or_none(packet: bytes) -> None:
    request_ = CVMRequest.parse(packet)
    if request_ is not None:
        again = CVMRequest.parse(request_.encode())
        assert again == request_


@given(packets(b"\0", b"\0\0", b"\0\0\1\3joe"), st.sampled_from([1, 2]), st.integers(-70, 300))
def test_any_packet_is_a_response_or_an_error_of_the_module(packet: bytes, version: int, status: int) -> None:
    request_ = replace(JOE, version=version)
    try:
        response = CVMResponse.parse(packet, request_)
    except RemoteProtocolError:
        response = None
    by_command = CVMResponse.of_command(packet, status, request_)
    assert by_command.verdict is not Verdict.ACCEPTED or status == 0
    if response is not None and response.code == 0:
        assert CVMResponse.parse(response.encode(request_), request_) == response


# -- what is refused -------------------------------------------------------------------------------------

LONG = b"x" * 256
UNSAYABLE: dict[str, Callable[[], CVMRequest]] = {
    "a long account": lambda: CVMRequest(LONG),
    "a long domain": lambda: CVMRequest(b"joe", LONG),
    "a long password": lambda: CVMRequest(b"joe", b"", Secret(LONG)),
    "a long secret": lambda: CVMRequest(b"joe", b"", None, Secret(LONG)),
    "a long response": lambda: CVMRequest(b"joe", b"", response=Secret(LONG)),
    "many random bytes": lambda: CVMRequest(b"joe", random_bytes=LONG),
    "more than a packet": lambda: CVMRequest(b"x" * 200, b"x" * 200, Secret(b"x" * 200)),
    "NUL in the account": lambda: CVMRequest(b"root\0joe"),
    "LF in the account": lambda: CVMRequest(b"jo\ne"),
    "CR in the domain": lambda: CVMRequest(b"joe", b"x\r"),
    "NUL in the password": lambda: CVMRequest(b"joe", b"", Secret(b"a\0b")),
    "NUL in the secret": lambda: CVMRequest(b"joe", b"", None, Secret(b"a\0b")),
    "version 3": lambda: CVMRequest(b"joe", version=3),
    "version 1 with random bytes": lambda: CVMRequest(b"joe", b"", version=1, random_bytes=EIGHT),
    "version 1 with a secret": lambda: CVMRequest(b"joe", b"", None, Secret(b"x"), version=1),
    "version 1 with an empty password": lambda: CVMRequest(b"joe", b"", Secret(b""), version=1),
    "version 1 with NUL in a digest": lambda: CVMRequest(
        b"joe", b"", challenge=b"x", response=Secret(b"\0"), version=1
    ),
    "version 1, long": lambda: CVMRequest(b"joe", LONG, version=1),
    "version 1, more than a packet": lambda: CVMRequest(b"x" * 200, b"x" * 200, Secret(b"x" * 200), version=1),
}


@pytest.mark.parametrize("what", UNSAYABLE)
def test_what_cannot_be_said_is_not(what: str) -> None:
    with pytest.raises(LocalProtocolError, match="CVM") as error:
        UNSAYABLE[what]().encode()
    assert "xxxx" not in str(error.value)


BAD_REQUESTS = [
    b"", b"\2", b"\2\0", b"\2\0\0", b"\3\0\1\3joe\0", b"\2\0\1\3joe", b"\2\0\1\3joe\0\0", b"\2\0\1\4joe\0",
    b"\2\0\1\2joe\0", b"\2\0\1\0\0", b"\2\0\3\1x\0", b"\2\0\1\3joe\1\3ann\0", b"\2\0\1\3joe\3\1a\3\1b\0",
    b"\2\0\1\3jo\n\0", b"\2\0\1\3jo\0\0", b"\2\0\1\3joe\2\1\r\0", b"\2\0\1\3joe\3\2a\0\0", b"\2\0\1\3joe\1",
    b"\2\xff\1\3joe\0", b"\1", b"\1joe", b"\1joe\0", b"\1joe\0\0", b"\1joe\0\0x\0", b"\1joe\0\0\0x", b"\1joe\0\0\0\0",
    b"\1\0\0\0", b"\1joe\0\0a\0b\0c\0\0", b"\1jo\ne\0\0\0", b"\1" + LONG + b"\0\0\0",
    b"\2\0\1\3joe\5\xff" + b"x" * 255 + b"\6\xff" + b"x" * 255 + b"\0",
]  # fmt: skip


@pytest.mark.parametrize("packet", BAD_REQUESTS)
def test_bad_requests(packet: bytes) -> None:
    assert CVMRequest.parse(packet) is None


def test_unknown_credentials_are_left_out() -> None:
    assert CVMRequest.parse(b"\2\0\x80\1x\1\3joe\0") == CVMRequest(b"joe")


BAD_RESPONSES = [
    b"", b"\0", b"\0\0", b"\0\0\1\3joe", b"\0\0\1\3joe\0\0", b"\0\0\1\4joe\0", b"\0\0\1\3joe\1\3ann\0",
    b"\0\0\1\3jo\n\0", b"\0\0\1\3jo\0\0", b"\0\1x\0", b"\0\0\1\3joe\0" + b"x" * 600, b"\0\xff\0",
]  # fmt: skip


@pytest.mark.parametrize("packet", BAD_RESPONSES)
def test_bad_responses(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        CVMResponse.parse(packet, JOE)


@pytest.mark.parametrize("packet", [b"\0", b"\0x", b"\0\1joe\0", b"\0\1joe\0\0\0", b"\0\1joe\0\0x", b"\0\1jo\ne\0\0"])
def test_bad_version_1_responses(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        CVMResponse.parse(packet, replace(JOE, version=1))


def test_facts_of_an_error_count_for_nothing() -> None:
    assert CVMResponse.parse(b"d\0\1\3joe\0", JOE) == CVMResponse(100)
    assert CVMResponse.parse(b"d\0\x10\2\0\0\0", JOE) == CVMResponse(100)
    with pytest.raises(RemoteProtocolError, match="malformed"):
        CVMResponse.parse(b"d\0nonsense", JOE)
    with pytest.raises(RemoteProtocolError, match="malformed"):
        CVMResponse.parse(b"\4\0", JOE)
    with pytest.raises(RemoteProtocolError, match="random bytes"):
        CVMResponse.parse(b"\4", JOE)
    chance = replace(JOE, random_bytes=EIGHT)
    with pytest.raises(RemoteProtocolError, match="random bytes"):
        CVMResponse.parse(b"\1\x31" + EIGHT, chance)  # the length is another
    assert CVMResponse.parse(b"d", replace(JOE, version=1)) == CVMResponse(100)


@pytest.mark.parametrize(
    ("response", "request_"),
    [
        (CVMResponse(256), JOE), (CVMResponse(-1), JOE), (CVMResponse(0, ((0, b"x"),)), JOE),
        (CVMResponse(0, ((256, b"x"),)), JOE), (CVMResponse(0, ((1, LONG),)), JOE),
        (CVMResponse(0, ((1, LONG * 2),)), replace(JOE, version=1)), (CVMResponse(0, ((1, b"a\0b"),)), JOE),
        (CVMResponse(0, tuple((n, b"x" * 250) for n in (1, 2, 3))), JOE),
    ],
)  # fmt: skip
def test_responses_that_cannot_be_said(response: CVMResponse, request_: CVMRequest) -> None:
    with pytest.raises(LocalProtocolError, match="CVM"):
        response.encode(request_)


# -- what it comes to ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (CVMResponse(0, FACTS), Verdict.ACCEPTED), (CVMResponse(0), Verdict.ACCEPTED),
        (CVMResponse(0, ((2, b"0"),)), Verdict.REFUSED), (CVMResponse(100), Verdict.REFUSED),
        (CVMResponse(100, ((16, b"0"),)), Verdict.REFUSED), (CVMResponse(100, ((16, b"1"),)), Verdict.OUT_OF_SCOPE),
        (CVMResponse(100, ((16, b"42"),)), Verdict.REFUSED),
        *[(CVMResponse(code), Verdict.UNAVAILABLE) for code in (1, 2, 3, 4, 5, 6, 7, 8, 99, 101, 255)],
    ],
)  # fmt: skip
def test_verdicts(response: CVMResponse, verdict: Verdict) -> None:
    assert response.verdict is verdict


def test_facts() -> None:
    response = CVMResponse(0, (*FACTS, (Fact.REAL_NAME, b"J\xc3\xb6 \xff")))
    assert response.text(Fact.USERNAME) == "joe" and response.text(Fact.SHELL) is None
    assert response.text(Fact.REAL_NAME) == "Jö \udcff"
    assert response.number(Fact.USER_ID) == 500 and response.number(Fact.GROUP_ID) is None
    assert response.numbers(Fact.SUPPLEMENTARY_GROUP_ID) == [5, 6]


NO_NUMBERS = [b"", b"+5", b"-1", b"05", b"1_0", b" 5", "٥".encode(), b"4294967296", b"9" * 20, b"0x5"]


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_numbers_are_numbers(number: bytes) -> None:
    response = CVMResponse(0, ((Fact.USER_ID, number),))
    with pytest.raises(RemoteProtocolError, match="USER_ID is no number"):
        response.number(Fact.USER_ID)
    with pytest.raises(RemoteProtocolError):
        response.verdict  # noqa: B018


@pytest.mark.parametrize(
    ("output", "status", "code"),
    [
        (b"\0\0\1\3joe\0", 0, 0), (b"\0\0\1\3joe\0", 100, 100), (b"d\0\0", 100, 100), (b"d\0\0", 0, 0),
        (b"d\0\0", 111, 111), (b"", 0, 4), (b"", 100, 4), (b"\0\0\1\3joe\0", -11, 4), (b"\0\0\1\3joe", 0, 4),
        (b"nonsense", 100, 4), (b"x" * 600, 1, 4),
    ],
)  # fmt: skip
def test_the_exit_status_of_a_command_counts(output: bytes, status: int, code: int) -> None:
    assert CVMResponse.of_command(output, status, JOE).code == code


def test_a_command_may_be_out_of_scope() -> None:
    assert CVMResponse.of_command(b"\0\0\x10\1" + b"1\0", 100, JOE).verdict is Verdict.OUT_OF_SCOPE


@pytest.mark.parametrize(
    ("name", "characters", "default", "split"),
    [
        ("joe", "@", "", (b"joe", b"")), ("joe@x", "@", "y", (b"joe", b"x")), ("joe@x@y", "@", "", (b"joe@x", b"y")),
        ("joe", "@", "y", (b"joe", b"y")), ("joe%x@y", "@%", "", (b"joe%x", b"y")),
        ("joe@x%y", "@%", "", (b"joe@x", b"y")), ("joe@x", "", "y", (b"joe@x", b"y")), ("@", "@", "y", (b"", b"")),
        ("jö@x", "@", "", ("jö".encode(), b"x")),
    ],
)  # fmt: skip
def test_split_account(name: str, characters: str, default: str, split: tuple[bytes, bytes]) -> None:
    assert split_account(name, characters, default) == split


def test_a_request_shows_no_secret() -> None:
    shown = repr(CVMRequest(b"joe", b"", Secret(b"hidden"), Secret(b"hidden")))
    assert "hidden" not in shown and "joe" in shown
