"""Addresses, parameters, and what is done with them: H52 to H59."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.auth.static import StaticStore
from mailfront_proto.secret import Secret
from mailfront_proto.smtp import Helo, Mail, Recipient
from tests.front import Front, codes
from tests.hostile.every import COMPAT, DEFAULT, HELLO, codes_of, split_outcome

CONTROLS = [bytes([n]) for n in (*range(0x00, 0x09), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F)]


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
@pytest.mark.parametrize("lmtp", [False, True], ids=["smtp", "lmtp"])
@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
def test_h52_control_bytes_reach_no_event(profile: object, lmtp: bool, control: bytes) -> None:
    chosen = DEFAULT if profile is DEFAULT else COMPAT
    hello = b"LHLO " if lmtp else b"EHLO "
    wire = [hello + b"a" + control + b"b", hello + b"x", b"MAIL FROM:<a" + control + b"@b>"]
    wire += [b'MAIL FROM:<"a' + control + b'"@b>', b"MAIL FROM:<a@b> X=" + control, b"MAIL FROM:<a@b>"]
    wire += [b"RCPT TO:<c@d" + control + b">", b"RCPT TO:<c@d> " + control + b"=1"]
    outcome = split_outcome([b"\r\n".join([*wire, b""])], chosen, lmtp=lmtp, few=True)
    assert [code for code in outcome.codes()[1:] if code < 400] == [250, 250]
    for event in outcome.events:
        if isinstance(event, Mail | Recipient):
            assert control not in event.address.raw and not event.parameters
        if isinstance(event, Helo):
            assert event.host == "x"


@pytest.mark.parametrize("line_end", [b"\r", b"\n"])
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_h52_a_line_end_cannot_be_in_an_envelope(profile: str, line_end: bytes, tmp_path: Path) -> None:
    for name in ("tmp", "new"):
        (tmp_path / name).mkdir()
    env = {"QUEUEDIR": str(tmp_path), "MAILFRONT_PROFILE": profile}
    front = Front("accept", backend="queuedir", env=env)
    nasty = [
        b"MAIL FROM:<a" + line_end + b"@b>",
        b"MAIL FROM:<a@b>",
        b"RCPT TO:<c" + line_end + b"@d>",
        b"RCPT TO:<e@f>",
    ]
    front.say(HELLO + b"\r\n".join([*nasty, b"DATA\r\n"]), b"x\r\n.\r\n")
    (file,) = (tmp_path / "new").iterdir()
    assert file.read_bytes() == b"a@b\0e@f\0\0x\n"


def test_h52_the_queuedir_envelope_cannot_be_extended(tmp_path: Path) -> None:
    """A NUL is the one byte that could."""
    for name in ("tmp", "new"):
        (tmp_path / name).mkdir()
    front = Front("accept", backend="queuedir", env={"QUEUEDIR": str(tmp_path), "MAILFRONT_PROFILE": "compat"})
    front.say(
        b"MAIL FROM:<a\0x@y\0\0@b>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c\0root@d>\r\nRCPT TO:<c@d>\r\nDATA\r\n", b".\r\n"
    )
    (file,) = (tmp_path / "new").iterdir()
    assert file.read_bytes() == b"a@b\0c@d\0\0"


@pytest.mark.parametrize("local", ['"a b"', '"a@b"', '"a\\"b"', '"<x>"', '""', '"."', '"a..b"', '"-x"'])
def test_h53_quoted_local_parts_stay_quoted(local: str, tmp_path: Path) -> None:
    for name in ("tmp", "new"):
        (tmp_path / name).mkdir()
    front = Front("accept", backend="queuedir", env={"QUEUEDIR": str(tmp_path)})
    front.say(
        f"EHLO x\r\nMAIL FROM:<{local}@example.net>\r\nRCPT TO:<{local}@example.org>\r\nDATA\r\n".encode(), b".\r\n"
    )
    (file,) = (tmp_path / "new").iterdir()
    assert file.read_bytes() == f"{local}@example.net\0{local}@example.org\0\0".encode()


ODD = [
    '""@x', '"', '"@', "\\", "a\\", "<@a,@b:c@d>", "@a:", "@", "<", ">", "<<a@b>>", "<<<<", "[", "a@[", "a@[]",
    "a@[1.2.3.4", "a@[IPv6:", "a@[IPv6::::]", "a@[x:y]", ":", "::", "a@b@c", "a@b>c", " ", "", "a" * 4000, "<" * 2000,
    '"' * 2001, "\\" * 2001, "@a," * 800 + ":b@c", "a@" + "b." * 1500, "(" * 1000, "\xe9", "\u202e", "%s%n", "a b@c",
]  # fmt: skip


@pytest.mark.parametrize("address", ODD, ids=[repr(a[:12]) for a in ODD])
@pytest.mark.parametrize("profile", [DEFAULT, COMPAT], ids=["default", "compat"])
def test_h54_odd_addresses_get_a_reply_and_nothing_worse(profile: object, address: str) -> None:
    chosen = DEFAULT if profile is DEFAULT else COMPAT
    lines = [f"MAIL FROM:<{address}>", f"MAIL FROM:{address}", f"MAIL {address}", "RSET", "MAIL FROM:<a@b>"]
    answers = codes_of([*lines, f"RCPT TO:<{address}>", "NOOP"], chosen, few=True)
    assert len(answers) == 7
    assert set(answers[:3]) <= {250, 500, 501, 553}
    assert (answers[3], answers[4], answers[6]) == (250, 250, 250)


@given(st.binary(max_size=60).filter(lambda b: b"\n" not in b))
def test_h54_any_bytes_as_an_address(argument: bytes) -> None:
    for chosen in (DEFAULT, COMPAT):
        wire = HELLO + b"MAIL FROM:<" + argument + b">\r\nMAIL " + argument + b"\r\n"
        assert len(split_outcome([wire], chosen, few=True).codes()) == 4


def test_h55_eight_bit_without_smtputf8() -> None:
    assert codes_of(["MAIL FROM:<j\u00f6rg@example.net>", "MAIL FROM:<a@b\u00fccher.example>"]) == [553, 553]
    outcome = split_outcome([HELLO + "MAIL FROM:<j\u00f6rg@example.net>\r\n".encode()])
    assert outcome.output.endswith(b"553 5.6.7 Non-ASCII addresses need SMTPUTF8.\r\n")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("\u017fTARTTLS", 500), ("\u212a", 500), ("ma\u0131l FROM:<a@b>", 500), ("MA\u0130L FROM:<a@b>", 500),
        ("MAIL FROM:<a@b> \u017fIZE=1", 501), ("MAIL FROM:<a@b> S\u0131ZE=1", 501),
        ("MAIL FROM:<a@b> BODY=8B\u0131TM\u0131ME", 501),
        ("MAIL \uff26ROM:<a@b>", 501), ("auth pla\u0131n AGpvZQBzZWNyZXQ=", 504), ("EHLO\u00a0x", 500),
        ("RSET\u2028", 500),
    ],
)  # fmt: skip
def test_h55_keywords_fold_in_ascii_only(line: str, code: int) -> None:
    outcome = split_outcome([HELLO + line.encode() + b"\r\n"], mechanisms=("PLAIN",), starttls=True)
    assert outcome.codes() == [220, 250, code]


def test_h55_domains_too() -> None:
    env = {"MAILFRONT_PROFILE": "compat", "ACCEPT_DOMAINS": "Kelvin.example", "SENDER_DOMAINS": "kelvin.example"}
    front = Front("check-fqdn", "accept-domains", env=env)
    output = front.say(
        "MAIL FROM:<a@KELVIN.example>\r\nRCPT TO:<b@KELVIN.EXAMPLE>\r\nRCPT TO:<b@\u212aelvin.example>\r\n"
        "MAIL FROM:<a@\u212aelvin.example>\r\n".encode()
    )
    assert codes(output) == [220, 250, 250, 550, 554]


PARAMETERS = [
    ("SIZE=9e99", 501), ("SIZE=-1", 501), ("SIZE=+5", 501), ("SIZE=0x10", 501), ("SIZE=1_0", 501),
    ("SIZE= 5", 501),
    ("SIZE=\u0661", 501), ("SIZE=" + "9" * 21, 501), ("SIZE=" + "9" * 20, 552), ("SIZE=" + "0" * 20, 250),
    ("SIZE=", 501),
    ("SIZE", 501), ("SIZE=1 SIZE=1", 501), ("SIZE=1 size=2", 501), ("BODY=XX", 501), ("BODY", 501),
    ("BODY=7BIT", 250),
    ("BODY=8bitmime", 250), ("BODY=7BIT BODY=8BITMIME", 501), ("BODY=BINARYMIME", 501), ("SMTPUTF8", 250),
    ("SMTPUTF8=", 501), ("SMTPUTF8=1", 501), ("RET=HDRS", 555), ("REQUIRETLS", 555),
    ("X", 555), ("X=Y", 555), ("=", 501), ("=x", 501), ("-X=1", 501), ("X==1", 501), ("X=a=b", 501),
    ("AUTH=<>", 555),
    ("SIZE=1 X=1", 555), ("SIZE=1;X", 501),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "code"), PARAMETERS)
def test_h56_parameters(parameters: str, code: int) -> None:
    assert codes_of([f"MAIL FROM:<a@example.net> {parameters}", "NOOP"], few=True) == [code, 250]
    assert codes_of([f"MAIL FROM:<a@example.net> {parameters}"], COMPAT, few=True) == [250]


def test_h56_of_recipients() -> None:
    lines = ["MAIL FROM:<a@b>", *(f"RCPT TO:<c@d> {p}" for p in ("NOTIFY=NEVER", "SIZE=1", "=", "X=a=b"))]
    assert codes_of(lines) == [250, 555, 555, 501, 501]
    assert codes_of(["MAIL FROM:<a@b>" + " SIZE=1" * 17, "NOOP"]) == [501, 250]


SHELL = [
    "$(reboot)",
    "`id`",
    "|/bin/sh",
    "a;b",
    "../../etc/passwd",
    "~root",
    "${IFS}",
    "%s%n",
    "*",
    "{{7*7}}",
    "-rf",
    "a&b",
]


@pytest.mark.parametrize("text", SHELL)
def test_h57_shell_and_template_characters_are_data(text: str, tmp_path: Path) -> None:
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    quoted = f'"{text}"@example.org'
    said = f"EHLO {text}\r\nMAIL FROM:<{quoted}>\r\nRCPT TO:<{quoted}>\r\nDATA\r\n".encode()
    echoed = Front("accept", backend="echo").say(said)
    assert f"Sender='{quoted}'.".encode() in echoed and f"Recipient='{quoted}'.".encode() in echoed
    Front("accept", "add-received", backend="maildir", env={"MAILDIR_PATH": str(tmp_path)}).say(said, b"x\r\n.\r\n")
    (file,) = (tmp_path / "new").iterdir()
    content = file.read_bytes()
    assert content.startswith(f"Return-Path: <{quoted}>\nReceived: from {text} (".encode())
    assert sorted(os.listdir(tmp_path)) == ["cur", "new", "tmp"] and os.listdir(tmp_path / "tmp") == []
    assert text not in file.name


@pytest.mark.parametrize("name", ["../../etc/passwd", "joe' OR '1'='1", "*)(uid=*", "%", "_", "joe\u0000", ""])
def test_h59_lookups_take_names_as_they_are(name: str) -> None:
    store = StaticStore({"joe": Secret(b"secret")})
    coroutine = store.verify_password(name, Secret(b"secret"))
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value is None


@pytest.mark.parametrize("domain", ["*.example", "%", "example.org:evil", "/etc/passwd", "", ".", "..", "ex*"])
def test_h59_domain_lists_are_no_patterns(domain: str) -> None:
    front = Front("accept-domains", env={"ACCEPT_DOMAINS": "example.org:*.example:", "MAILFRONT_PROFILE": "compat"})
    output = front.say(f"MAIL FROM:<a@b>\r\nRCPT TO:<c@{domain}>\r\n".encode())
    assert codes(output)[-1] == (250 if domain == "*.example" else 550)  # the name itself, no pattern
