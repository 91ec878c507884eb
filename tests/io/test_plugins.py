"""Each plugin that comes with mailfront, through the front end."""

import re
from pathlib import Path

import pytest

from mailfront_io.auth.static import StaticStore
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.plugin import Plugin
from mailfront_io.registry import CannotLoad, backend_names, load_backend, load_plugin, parse_plugin_list, plugin_names
from mailfront_io.testing import EOF, VirtualClock
from mailfront_proto.secret import Secret
from tests.certificates import server_context
from tests.front import ENVELOPE, Front, codes

HELO = b"EHLO x\r\n"
MAIL = b"MAIL FROM:<a@example.net>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
DATA = ENVELOPE + b"DATA\r\n"
BODY = b"line\r\n.\r\n"
JOE = StaticStore({"joe": Secret(b"secret")})
LOGIN = b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"
CLEAR = {"AUTH_REQUIRES_TLS": "0"}


def replies(output: bytes, skip: int = 0) -> list[str]:
    """The last line of each reply behind that to EHLO."""
    lines = [line.decode("utf-8", "surrogateescape") for line in output.split(b"\r\n") if line[3:4] == b" "]
    return lines[2 + skip :]


# -- accept and its like ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        (["accept"], [250, 250]), (["accept-sender"], [250, 550]), (["accept-recipient"], [550, 503]),
        (["accept-sender", "accept-recipient"], [250, 250]), ([], [550, 503]),
    ],
)  # fmt: skip
def test_accept(plugins: list[str], expected: list[int]) -> None:
    assert codes(Front(*plugins).say(HELO + MAIL + RCPT))[2:] == expected


@pytest.mark.parametrize(
    ("domains", "recipient", "code"),
    [
        ("example.org", "b@example.org", 250), ("example.org", "b@EXAMPLE.ORG", 250),
        ("a:Example.Org:b", "b@example.org", 250),
        ("example.org", "b@sub.example.org", 550), ("example.org", "b@example.orgx", 550),
        ("", "b@example.org", 550),
        ("example.org", '"b@example.org"@other.example', 550), ("example.org", "postmaster", 550),
        ("::", "postmaster", 550),
    ],
)  # fmt: skip
def test_accept_domains(domains: str, recipient: str, code: int) -> None:
    front = Front("accept-domains", env={"ACCEPT_DOMAINS": domains})
    assert codes(front.say(HELO + MAIL + f"RCPT TO:<{recipient}>\r\n".encode()))[2:] == [250, code]


# -- reject, require-auth, relayclient -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "reply"),
    [
        ({}, "250 2.1.0 Sender accepted."),
        ({"REJECT": "later please"}, "451 4.3.0 later please"),
        ({"REJECT": "-go away"}, "553 5.1.0 go away"),
        ({"REJECT": ""}, "451 4.3.0 You are not allowed to use this mail server."),
        ({"REJECT": "-"}, "553 5.1.0 You are not allowed to use this mail server."),
        ({"REJECT": "--x"}, "553 5.1.0 -x"),
        ({"SMTPREJECT": "-smtp", "REJECT": "other"}, "553 5.1.0 smtp"),
        ({"SMTPREJECT": "", "REJECT": "other"}, "451 4.3.0 You are not allowed to use this mail server."),
        ({"REJECT": "two\nlines"}, "451 lines"),
    ],
)
def test_reject(env: dict[str, str], reply: str) -> None:
    assert replies(Front("reject", "accept", env=env).say(HELO + MAIL))[-1].replace("4.3.0 lines", "lines") == reply


def test_require_auth() -> None:
    assert replies(Front("require-auth", "accept").say(HELO + MAIL)) == ["530 5.7.1 You must authenticate first."]
    assert codes(Front("require-auth", "accept", env={"RELAYCLIENT": ""}).say(HELO + MAIL))[-1] == 250
    front = Front("authenticate", "require-auth", "accept", credentials=JOE, env=CLEAR)
    assert codes(front.say(HELO + MAIL + LOGIN + MAIL))[2:] == [530, 235, 250]


def test_relayclient() -> None:
    assert codes(Front("accept-sender", "relayclient").say(HELO + MAIL + RCPT))[-1] == 550
    front = Front("accept-sender", "relayclient", env={"RELAYCLIENT": "@via.example"})
    front.say(DATA, BODY)
    assert front.messages == [("a@example.net", ["b@example.org@via.example"], b"line\n")]
    front = Front("authenticate", "accept-sender", "relayclient", credentials=JOE, env=CLEAR)
    assert codes(front.say(HELO + LOGIN + MAIL + RCPT))[-1] == 250


# -- check-fqdn ------------------------------------------------------------------------------------------

FQDN = [
    # address of the recipient, DEFAULTHOST, DEFAULTDOMAIN, what it becomes
    ("a@b.example", None, None, "a@b.example"),
    ("a", None, None, "554 5.1.2 Address is missing a domain name"),
    ("a", "h.example", None, "a@h.example"), ("a", "h", "d.example", "a@h.d.example"),
    ("a", "h", None, "554 5.1.2 Address does not contain a fully qualified domain name"),
    ("a@b", None, None, "554 5.1.2 Address does not contain a fully qualified domain name"),
    ("a@b", None, "d.example", "a@b.d.example"), ("a@b@c.example", None, None, "a@b@c.example"),
    ("a.b@c", None, "d.example", "a.b@c.d.example"),
    ("@b.example", None, None, "554 5.1.2 Address is missing a domain name"),
    ("@b.example", "h.example", None, "@b.example@h.example"), ("a@", None, "d.example", "a@.d.example"),
    ("", "h.example", "d.example", "554 5.1.2 Recipient address may not be empty"),
]  # fmt: skip


@pytest.mark.parametrize(("address", "host", "domain", "result"), FQDN)
def test_check_fqdn(address: str, host: str | None, domain: str | None, result: str) -> None:
    env = {"MAILFRONT_PROFILE": "compat"}
    env |= {"DEFAULTHOST": host} if host is not None else {}
    env |= {"DEFAULTDOMAIN": domain} if domain is not None else {}
    front = Front("check-fqdn", "accept", env=env)
    output = front.say(HELO + MAIL + f"RCPT TO:<{address}>\r\n".encode() + b"DATA\r\n", b".\r\n")
    if result.startswith("554"):
        assert replies(output)[1] == result
    else:
        assert front.messages[0][1] == [result]


@pytest.mark.parametrize(
    ("domains", "sender", "reply"),
    [
        (None, "", "250 2.1.0 Sender accepted."),
        ("one.example", "a@one.example", "250 2.1.0 Sender accepted."),
        (":One.example::two.example", "a@TWO.example", "250 2.1.0 Sender accepted."),
        ("one.example", "a@sub.one.example", "554 5.1.2 Sender contains a disallowed domain"),
        ("one.example", "", "554 5.1.2 Empty sender address prohibited"),
        ("", "a@one.example", "554 5.1.2 Sender contains a disallowed domain"),
    ],
)  # fmt: skip
def test_sender_domains(domains: str | None, sender: str, reply: str) -> None:
    front = Front("check-fqdn", "accept", env={} if domains is None else {"SENDER_DOMAINS": domains})
    assert replies(front.say(HELO + f"MAIL FROM:<{sender}>\r\n".encode())) == [reply]


# -- counters --------------------------------------------------------------------------------------------


def test_counters_size_in_ehlo() -> None:
    def size(env: dict[str, str]) -> str:
        found = re.search(rb"250-SIZE (\d+)\r\n", Front("counters", "accept", env=env).say(HELO))
        return found[1].decode() if found else ""

    assert size({}) == "52428800"  # the machine's own
    assert size({"DATABYTES": "1000"}) == "1000"
    assert size({"DATABYTES": "99999999999"}) == "52428800"
    assert size({"MAILFRONT_PROFILE": "compat"}) == "0"
    assert size({"MAILFRONT_PROFILE": "compat", "DATABYTES": "1000"}) == "1000"


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        ("SIZE=100", 250),
        ("SIZE=101", 552),
        ("size=101", 552),
        ("SIZE=", 250),
        ("SIZE", 250),
        ("SIZE=x", 250),
        ("SIZE=0101", 552),
    ],
)
def test_counters_size_of_mail(parameter: str, code: int) -> None:
    front = Front("counters", "accept", env={"MAILFRONT_PROFILE": "compat", "DATABYTES": "100"})
    output = front.say(f"MAIL FROM:<a@b> {parameter}\r\n".encode())
    assert codes(output)[-1] == code
    if code == 552:
        assert output.endswith(b"552 5.2.3 The message would exceed the maximum message size.\r\n")


@pytest.mark.parametrize(
    ("profile", "limit", "code"),
    [("default", 9, 250), ("default", 8, 552), ("compat", 7, 250), ("compat", 6, 552)],
)
def test_counters_databytes(profile: str, limit: int, code: int) -> None:
    """7 octets with LF, 9 with CRLF; headers that we add do not count."""
    env = {"MAILFRONT_PROFILE": profile, "DATABYTES": str(limit)}
    front = Front("counters", "accept", "add-received", env=env)
    output = front.say(DATA, b"abc\r\n..d\r\n.\r\n", MAIL)
    assert codes(output)[-2] == code
    if code == 552:
        assert b"552 5.2.3 Sorry, that message exceeds the maximum message length.\r\n" in output


def test_counters_recipients() -> None:
    wire = HELO + MAIL + RCPT * 4 + b"DATA\r\n"
    output = Front("counters", "accept", env={"MAXRCPTS": "2"}).say(wire, BODY)
    assert codes(output)[2:] == [250, 250, 250, 550, 550, 354, 250]
    assert b"550 5.5.3 Too many recipients\r\n" in output
    output = Front("counters", "accept", env={"MAXRCPTS": "2", "MAXRCPTS_REJECT": ""}).say(wire)
    assert codes(output)[2:] == [250, 250, 250, 550, 550, 550]
    # refused ones count; and each message has its own
    refusing = Front("counters", "accept-domains", env={"MAXRCPTS": "2", "ACCEPT_DOMAINS": "example.org"})
    output = refusing.say(HELO + MAIL + b"RCPT TO:<x@y.example>\r\n" + RCPT + RCPT + MAIL + RCPT)
    assert codes(output)[2:] == [250, 550, 250, 550, 250, 250]


def test_counters_messages() -> None:
    front = Front("counters", "accept", env={"MAXMSGS": "2"})
    output = front.say(DATA, BODY, DATA, BODY, ENVELOPE, MAIL)
    assert codes(output)[-4:] == [250, 550, 503, 550]
    assert len(front.messages) == 2
    compat = Front("counters", "accept", env={"MAXMSGS": "1", "MAILFRONT_PROFILE": "compat"})
    assert codes(compat.say(DATA, BODY, b"DATA\r\n"))[-2:] == [250, 550]


HOPS = [
    (b"Received: 1\r\nReceived: 2\r\n\r\n", 250), (b"Received: 1\r\nReceived: 2\r\nReceived: 3\r\n\r\n", 554),
    (b"received: 1\r\nRECEIVED: 2\r\nreceived: 3\r\n\r\n", 554),
    (b"Received: 1\r\nDelivered-To: 1\r\nReceived: 2\r\n\r\n", 250),
    (b"Delivered-To: 1\r\ndelivered-to: 2\r\nDelivered-To: 3\r\n\r\n", 554),
    (b"\r\nReceived: 1\r\nReceived: 2\r\nReceived: 3\r\n", 250),
    (b"Received: 1\r\n\r\nReceived: 2\r\nReceived: 3\r\n", 250),
    (b"X-Received: 1\r\n Received: 2\r\nReceived 3\r\nReceived: 4\r\n\r\n", 250),
    (b"Received: 1\r\n" * 2 + b"Subject: " + b"x" * 200 + b"\r\nReceived: 3\r\n\r\n", 554),
    (b"Received: 1\r\n" * 2 + b"Received\r\n:x\r\n\r\n", 250),
    (b"Received: 1\r\nReceived: 2\r\nReceived: 3\r\n", 554),
]  # fmt: skip


@pytest.mark.parametrize(("header", "code"), HOPS)
def test_counters_hops_however_the_header_is_cut(header: bytes, code: int) -> None:
    wire = header + b".\r\n"
    for cut in [None, *range(1, len(wire), 1 if len(wire) < 100 else 7), 0]:
        pieces = (
            [wire]
            if cut is None
            else [wire[i : i + 1] for i in range(len(wire))]
            if cut == 0
            else [wire[:cut], wire[cut:]]
        )
        output = Front("counters", "accept", env={"MAXHOPS": "2"}).say(DATA, *pieces)
        assert codes(output)[-1] == code, pieces
    if code == 554:
        assert output.endswith(b"554 5.6.0 This message is looping, too many hops.\r\n")


def test_counters_take_the_smallest_of_all_assignments() -> None:
    class Assigns(Plugin):
        def connect(self) -> None:
            for value in ("0", "nonsense", "50", "20", "30"):
                self.session.putenv("DATABYTES", value)

    assert b"250-SIZE 20\r\n" in Front(Assigns, "counters", "accept", env={"DATABYTES": "40"}).say(HELO)


# -- add-received ----------------------------------------------------------------------------------------


def header(env: dict[str, str] | None = None, hello: bytes = HELO, **options: object) -> str:
    front = Front("authenticate", "accept", "add-received", env=env, credentials=JOE, **options)  # type: ignore[arg-type]
    front.play([hello + MAIL + RCPT + b"DATA\r\n", BODY, EOF], clock=VirtualClock(1_000_000_000.9))
    return front.messages[0][2].decode().removesuffix("line\n")


NAMELESS = {f"TCP{name}": "" for name in ("LOCALHOST", "LOCALIP", "REMOTEIP", "REMOTEHOST")}
DATE = "09 Sep 2001 01:46:40 -0000"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (
            {},
            "from x (client.example.net [198.51.100.7])\n  by mx.example.org ([192.0.2.1])\n"
            f"  with ESMTP via TCP; {DATE}",
        ),
        (
            {"TCPREMOTEHOST": ""},
            f"from x ([198.51.100.7])\n  by mx.example.org ([192.0.2.1])\n  with ESMTP via TCP; {DATE}",
        ),
        (NAMELESS, f"from x\n  by unknown\n  with ESMTP via TCP; {DATE}"),
        (NAMELESS | {"TCPLOCALIP": "192.0.2.1"}, f"from x\n  by 192.0.2.1 ([192.0.2.1])\n  with ESMTP via TCP; {DATE}"),
        (
            {"PROTO": "tcp6", "tcp6REMOTEIP": "2001:db8::1", "tcp6LOCALIP": "2001:db8::2"},
            f"from x ([IPv6:2001:db8::1])\n  by IPv6:2001:db8::2 ([IPv6:2001:db8::2])\n  with ESMTP via tcp6; {DATE}",
        ),
    ],
)
def test_the_trace_line(env: dict[str, str], expected: str) -> None:
    assert header(env) == f"Received: {expected}\n"


def test_the_name_in_the_trace_line_falls_back() -> None:
    compat = {"MAILFRONT_PROFILE": "compat"}
    assert header(compat, b"").startswith("Received: from client.example.net (")
    assert header(compat | {"TCPREMOTEHOST": ""}, b"").startswith("Received: from 198.51.100.7 (")
    assert header(compat | NAMELESS, b"").startswith("Received: from unknown\n")
    assert header(compat, b"HELO\r\n").startswith("Received: from  (")  # missing is not empty


@pytest.mark.parametrize(
    ("hello", "profile", "expected"),
    [
        (b"HELO x\r\n", "default", "SMTP"), (HELO, "default", "ESMTP"), (HELO + LOGIN, "default", "ESMTPA"),
        (HELO + b"HELO x\r\n", "default", "ESMTP"), (HELO + LOGIN, "compat", "ESMTP"),
    ],
)  # fmt: skip
def test_the_protocol_in_the_trace_line(hello: bytes, profile: str, expected: str) -> None:
    assert f"  with {expected} via TCP" in header({"MAILFRONT_PROFILE": profile, **CLEAR}, hello)


def test_authentication_drops_the_helo_name_of_the_trace_line() -> None:
    assert header(CLEAR, HELO + LOGIN).startswith("Received: from client.example.net (client")
    assert header(CLEAR, HELO + LOGIN + HELO).startswith("Received: from x (client")


def test_header_add_and_fixup() -> None:
    env = {
        "HEADER_ADD": "X-One: 1\nX-Two: 2",
        "FIXUP_RECEIVED_HOST": "out.example.org",
        "FIXUP_RECEIVED_IP": "192.0.2.9",
    }
    lines = header(env).split("\n")
    assert lines[0] == "Received: from mx.example.org (mx.example.org [192.0.2.1])"
    assert lines[1] == f"  by out.example.org ([192.0.2.9]); {DATE}"
    assert lines[2:4] == ["X-One: 1", "X-Two: 2"] and lines[4].startswith("Received: from x ")
    same = {"FIXUP_RECEIVED_HOST": "MX.example.org", "FIXUP_RECEIVED_IP": "192.0.2.1"}
    assert header(same).startswith("Received: from x ")
    assert header({"FIXUP_RECEIVED_HOST": "out.example.org"}).startswith("Received: from x ")


def test_no_trace_line_for_those_who_may_relay_where_it_is_not_wanted() -> None:
    off = {"AUTH_ADD_RECEIVED": "0", "HEADER_ADD": "X: 1"}
    assert header(off | {"RELAYCLIENT": ""}) == ""
    assert header(off | CLEAR, HELO + LOGIN) == ""
    assert header(off) != ""
    assert header({"AUTH_ADD_RECEIVED": "1", "RELAYCLIENT": ""}) != ""
    assert header({"AUTH_ADD_RECEIVED": "no", "RELAYCLIENT": "", "MAILFRONT_PROFILE": "compat"}) != ""


# -- authenticate ----------------------------------------------------------------------------------------


def test_authenticate_offers_at_its_place_and_not_again() -> None:
    front = Front("authenticate", "counters", "accept", credentials=JOE, env=CLEAR | {"DATABYTES": "9"})
    output = front.say(HELO + LOGIN + HELO)
    assert b"250-AUTH LOGIN PLAIN\r\n250-SIZE 9\r\n" in output
    assert b"AUTH" not in Front("authenticate", "accept", env=CLEAR).say(HELO)  # no store
    assert b"AUTH" not in Front("authenticate", "accept", credentials=JOE).say(HELO)  # no TLS
    assert b"AUTH" not in Front("authenticate", "accept", credentials=JOE, tls=server_context()).say(HELO)


@pytest.mark.parametrize(("uid", "code"), [(None, 235), (1000, 235), (0, 535)])
def test_authenticate_refuses_the_superuser(uid: int | None, code: int) -> None:
    class Store(CredentialStore):
        mechanisms = ("LOGIN", "PLAIN")

        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            return Identity(username, "example.org", "/mail/joe", uid, 100)

    seen: list[tuple[dict[str, str], dict[str, int]]] = []

    class Sees(Plugin):
        def sender(self, path: object) -> None:
            seen.append((dict(self.session.strings), dict(self.session.numbers)))

    front = Front("authenticate", Sees, "accept", credentials=Store(), env=CLEAR)
    assert codes(front.say(HELO + LOGIN + MAIL))[2] == code
    strings, numbers = seen[0]
    if code == 235:
        assert strings["auth_user"] == "joe" and strings["auth_domain"] == "example.org"
        assert numbers["authenticated"] == 1 and numbers.get("auth_uid") == uid and numbers["auth_gid"] == 100
        assert "SASL AUTH PLAIN username=joe domain=example.org" in front.log
    else:
        assert not any(name.startswith("auth") for name in (*strings, *numbers))
        assert "SASL AUTH PLAIN failed" in front.log


def test_authenticate_says_when_the_store_cannot() -> None:
    class Store(CredentialStore):
        mechanisms = ("LOGIN", "PLAIN")

        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            raise StoreUnavailable("the database is away")

    front = Front("authenticate", "accept", credentials=Store(), env=CLEAR)
    assert replies(front.say(HELO + LOGIN)) == ["454 4.7.0 Temporary authentication failure"]
    assert "credential store: the database is away" in front.log


def test_the_static_store_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("# users\n\njoe:secret\nann:with:colon\n j : x \n", "utf-8")
    store = StaticStore.from_file(str(file))
    assert set(store._users) == {"joe", "ann", " j "}
    assert store._users["ann"].reveal() == b"with:colon"
    for bad in ("joe\n", ":x\n", "joe:\n"):
        file.write_text("a:b\n" + bad, "utf-8")
        with pytest.raises(ValueError, match="line 2: write user:password"):
            StaticStore.from_file(str(file))


# -- all of them -----------------------------------------------------------------------------------------


def test_each_has_its_name_and_declares_its_settings() -> None:
    for hooks in [*map(load_plugin, plugin_names()), *map(load_backend, backend_names())]:
        assert hooks.name in (*plugin_names(), *backend_names())
        assert all(setting.doc and setting.variable.isupper() for setting in hooks.settings)
        assert len({s.variable for s in hooks.settings}) == len(hooks.settings)


@pytest.mark.parametrize(
    "name", ["nonsense", "no.such.module:Class", "os:path", "os:nothing", "mailfront_io.plugin:Backend", ":", "os:"]
)
def test_what_cannot_be_loaded_is_named(name: str) -> None:
    with pytest.raises(CannotLoad, match=f"Error loading plugin {re.escape(name)}: ") as caught:
        load_plugin(name)
    assert (caught.value.kind, caught.value.name) == ("plugin", name)
    with pytest.raises(CannotLoad, match="Error loading backend"):
        load_backend(name.replace("Backend", "Plugin"))


@pytest.mark.parametrize(
    ("arguments", "variable", "names"),
    [
        (["a", "b"], None, ["a", "b"]), (["a:b", "c"], "d", ["a", "b", "c", "d"]),
        (["a", "b", "a"], None, ["b", "a"]),
        (["a", "b", "+c"], None, ["c", "a", "b"]), (["a", "b", "+b"], None, ["b", "a"]),
        (["a", "b", "-a"], None, ["b"]),
        (["a", "-x"], None, ["a"]), (["a", "b", "-*", "c"], None, ["c"]), (["a"], "-*:b", ["b"]),
        (["::a::"], ":", ["a"]),
        (["a", "my.module:Class", "b"], None, ["a", "my.module:Class", "b"]),
        (["a:my.module:Class:b"], None, ["a", "my.module:Class", "b"]),
        (["+my.module:Class"], "a", ["my.module:Class", "a"]), (["my:Class", "-my:Class"], None, []),
        ([], None, []), ([], "a:+b", ["b", "a"]), (["a", "+-a", "-+a"], None, ["-a", "a"]),
        (["a,deadline=5:b"], "-a", ["b"]), (["a:b"], "a,failure=pass", ["b", "a,failure=pass"]),
        (["+m:C,deadline=5,failure=pass", "b"], None, ["m:C,deadline=5,failure=pass", "b"]),
    ],
)  # fmt: skip
def test_the_list_of_plugins(arguments: list[str], variable: str | None, names: list[str]) -> None:
    assert parse_plugin_list(arguments, variable) == names
