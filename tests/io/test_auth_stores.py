"""Credential stores by themselves, under the scripted driver; what of them a session offers, and how it answers."""

import base64
import hashlib
import hmac
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfront_io.auth import derivation
from mailfront_io.auth.cvm import CVMStore, parse_modules
from mailfront_io.auth.derivation import Turnstile
from mailfront_io.auth.opening import open_named_store
from mailfront_io.auth.passwd import PasswdStore
from mailfront_io.auth.sqlite import ITERATIONS, NoSuchUser, SQLiteStore, UserDatabase, UserExists
from mailfront_io.auth.static import StaticStore
from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.ops import Connection, Thread
from mailfront_io.testing import EOF, REFUSED, SILENT, Action, Outside, Played, Program, VirtualClock, run_script
from mailfront_proto.cvm import Code, CVMRequest, CVMResponse, Fact
from mailfront_proto.sasl import derive_keys
from mailfront_proto.secret import Secret
from tests.front import Front, codes

T = TypeVar("T")

PENCIL = Secret(b"pencil")
WRONG = Secret(b"pen")


def ask(
    question: Callable[[Asker], Awaitable[T]],
    outside: Outside | None = None,
    environment: Mapping[str, str] | None = None,
    default_domain: str = "",
) -> tuple[T, Played]:
    """The store's answer under the scripted driver, and what was done to get it. What it raises is raised."""
    answers: list[T] = []

    async def session(connection: Connection) -> int:
        settings = environment or {}
        asker = Asker(connection.clock.monotonic() + 90, settings, default_domain, {**settings, "PROGRAMS": "have it"})
        answers.append(await question(asker))
        return 0

    played = run_script(session, [], outside=outside or Outside())
    if played.error is not None:
        raise played.error
    return answers[0], played


def said(question: Callable[[Asker], Awaitable[T]], **options: object) -> T:
    return ask(question, **options)[0]  # type: ignore[arg-type]


# -- SQLite ----------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> UserDatabase:
    made = UserDatabase(str(tmp_path / "deep" / "er" / "users.sqlite"))
    made.create()
    made.add("ann", PENCIL, mailbox="example.org/ann", uid=500, gid=501)
    return made


def test_plain_and_scram_are_served_and_no_password_is_stored(database: UserDatabase) -> None:
    store = SQLiteStore(database.path)
    ann = Identity("ann", mailbox="example.org/ann", uid=500, gid=501)
    assert said(lambda asker: store.verify_password("ann", PENCIL, asker)) == ann
    assert said(lambda asker: store.verify_password("ann", WRONG, asker)) is None
    assert said(lambda asker: store.verify_password("bob", PENCIL, asker)) is None
    assert said(lambda asker: store.look_up("ann", asker)) == ann
    assert said(lambda asker: store.look_up("Ann", asker)) is None
    keys = said(lambda asker: store.find_keys("ann", "sha256", asker))
    assert keys is not None and keys.iterations == ITERATIONS >= 15_000
    assert keys == derive_keys(PENCIL, keys.salt, keys.iterations)
    assert said(lambda asker: store.find_keys("ann", "sha1", asker)) is None
    assert said(lambda asker: store.find_keys("bob", "sha256", asker)) is None
    assert b"pencil" not in Path(database.path).read_bytes()
    with closing(sqlite3.connect(database.path)) as connection:
        [row] = connection.execute("select keys from users")
    assert row[0].startswith("SCRAM-SHA-256$15000:")


def test_h90_modes_of_the_database_and_its_directory(database: UserDatabase) -> None:
    path = Path(database.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["users.sqlite"]


def test_h87_salts_of_nobody_are_as_old_as_the_file(database: UserDatabase) -> None:
    secret = SQLiteStore(database.path).salt_secret
    database.create()  # does nothing to a file that is there
    database.add("bob", WRONG)
    again = SQLiteStore(database.path).salt_secret
    assert secret is not None and again == secret and len(secret.reveal()) == 32


def test_an_unknown_user_costs_what_a_wrong_password_costs(
    database: UserDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[int] = []

    def counting(password: Secret, salt: bytes, iterations: int, hash_name: str) -> object:
        spent.append(iterations)
        return derive_keys(password, salt, iterations, hash_name)

    monkeypatch.setattr(derivation, "derive_keys", counting)
    for name in ("ann", "bob", "an\N{COMBINING DIAERESIS}", "\N{NO-BREAK SPACE}"):
        assert database.verify(name, WRONG) is None
    assert database.verify("ann", Secret(b"\xff")) is None  # no password could be that
    assert spent[:4] == [ITERATIONS] * 4 and spent[-1] == ITERATIONS


def test_users_are_kept(database: UserDatabase) -> None:
    with pytest.raises(UserExists):
        database.add("ann", WRONG)
    assert database.verify("ann", PENCIL) is not None
    database.set_password("ann", WRONG)
    assert database.verify("ann", PENCIL) is None and database.verify("ann", WRONG) is not None
    with pytest.raises(NoSuchUser):
        database.set_password("bob", WRONG)
    database.remove("ann")
    with pytest.raises(NoSuchUser):
        database.remove("ann")
    assert database.users() == []


@pytest.mark.parametrize(
    "name", ["", "a\nb", "a/b", ".a", " a", "a:b", "a\N{SOFT HYPHEN}b", "x" * 256, "\N{ROMAN NUMERAL ONE}"]
)
def test_names_that_are_none(database: UserDatabase, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        database.add(name, PENCIL)


@settings(max_examples=40, deadline=None)
@given(name=st.text(max_size=20), password=st.binary(max_size=40))
def test_whatever_is_added_can_log_in(
    tmp_path_factory: pytest.TempPathFactory, name: str, password: bytes
) -> None:
    made = UserDatabase(str(tmp_path_factory.getbasetemp() / "hypothesis.sqlite"))
    made.create()
    try:
        made.add(name, Secret(password))
    except (ValueError, UserExists):
        return
    try:
        assert made.verify(name, Secret(password)) == Identity(name)
        assert made.verify(name, Secret(password + b"x")) is None
    finally:
        made.remove(name)


def test_files_that_are_no_such_database(tmp_path: Path) -> None:
    missing = UserDatabase(str(tmp_path / "none"))
    with pytest.raises(StoreUnavailable, match="does not exist: make it with mailfront user --database "):
        missing.users()
    (tmp_path / "text").write_text("hello " * 1000)
    with pytest.raises(StoreUnavailable, match="text: file is not a database"):
        SQLiteStore(str(tmp_path / "text"))
    with closing(sqlite3.connect(tmp_path / "newer")) as connection:
        connection.execute("pragma user_version = 7")
    with pytest.raises(StoreUnavailable, match="is of version 7, and this program knows 1"):
        SQLiteStore(str(tmp_path / "newer"))
    (tmp_path / "empty").touch()
    with pytest.raises(StoreUnavailable, match="is no database of users"):
        SQLiteStore(str(tmp_path / "empty"))
    with pytest.raises(StoreUnavailable, match="text: File exists"):
        UserDatabase(str(tmp_path / "text" / "users")).create()


def test_a_database_that_goes_away_is_a_temporary_failure(database: UserDatabase) -> None:
    store = SQLiteStore(database.path)
    front = Front("authenticate", "accept", credentials=store, env={"AUTH_REQUIRES_TLS": "0"})
    Path(database.path).unlink()
    output = front.say(b"EHLO x\r\n", plain("ann", "pencil"), b"NOOP\r\n")
    assert codes(output) == [220, 250, 454, 250]
    assert any(line.startswith("credential store: ") and "does not exist" in line for line in front.log)


def test_only_so_many_derivations_at_once() -> None:
    turnstile = Turnstile(2, max_waiting=1)
    inside, release = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        inside.release()
        assert release.wait(20)

    threads = [threading.Thread(target=turnstile.call, args=(hold,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert inside.acquire(timeout=20) and inside.acquire(timeout=20)
    waiting = threading.Thread(target=turnstile.call, args=(hold,))
    waiting.start()
    while turnstile._room._value:
        pass
    with pytest.raises(StoreUnavailable, match="too many logins at once"):
        turnstile.call(hold)
    release.set()
    for thread in (*threads, waiting):
        thread.join(20)
    assert turnstile.call(lambda: 1) == 1


# -- password files --------------------------------------------------------------------------------------------


def lines(*users: tuple[str, str]) -> str:
    salt = b"0123456789abcdef"
    made = []
    for name, scheme in users:
        if scheme == "SCRAM-SHA-256":
            secret = derive_keys(PENCIL, salt, 4096).encode().reveal().decode()
        elif scheme == "PBKDF2-SHA256":
            key = hashlib.pbkdf2_hmac("sha256", b"pencil", salt, 1000)
            secret = f"1000${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"
        else:
            secret = "pencil"
        made.append(f"{name}:{{{scheme}}}{secret}:1000:1001:Ann A.::/bin/sh\n")
    return "# users\n\n" + "".join(made)


def token_line(name: str, token: bytes, rest: str = "") -> str:
    return f"{name}:{{TOKEN-SHA256}}{hashlib.sha256(token).hexdigest()}{rest}\n"


def test_tokens_in_a_password_file(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text(
        lines(("ann", "SCRAM-SHA-256")) + token_line("ann", b"one", ":2000") + token_line("ann", b"two", ":2001")
        + token_line("robot", b"three").upper().replace("ROBOT", "robot")
    )  # fmt: skip
    store = PasswdStore(str(path))
    assert store.mechanisms == (
        "SCRAM-SHA-256", "LOGIN", "PLAIN", "OAUTHBEARER", "XOAUTH2", "EXTERNAL", "ANONYMOUS"
    )  # fmt: skip
    for token, user, uid in ((b"one", "ann", 2000), (b"two", "ann", 2001), (b"three", "robot", None)):
        for claimed in ("", user, "bob"):  # who calls compares
            found = said(lambda asker, t=token, c=claimed: store.verify_token(c, Secret(t), {}, asker))  # type: ignore[misc]
            assert found == Identity(user, uid=uid)
    for wrong in (b"", b"four", hashlib.sha256(b"one").hexdigest().encode()):
        assert said(lambda asker, t=wrong: store.verify_token("ann", Secret(t), {}, asker)) is None  # type: ignore[misc]
    ann, robot = (said(lambda asker, n=name: store.look_up(n, asker)) for name in ("ann", "robot"))  # type: ignore[misc]
    assert ann is not None and ann.uid == 1000 and robot == Identity("robot")
    for password in (b"one", b"three", hashlib.sha256(b"three").hexdigest().encode()):
        assert said(lambda asker, p=password: store.verify_password("robot", Secret(p), asker)) is None  # type: ignore[misc]
    assert said(lambda asker: store.find_keys("robot", "sha256", asker)) is None


def test_h51_no_token_lets_the_superuser_in(tmp_path: Path) -> None:
    """What is known of a user holds for the tokens, too, unless their lines say more."""
    path = tmp_path / "passwd"
    path.write_text(
        f"{token_line('root', b'first')}root:{{PLAIN}}x:0:0\nann:{{PLAIN}}x:7:8\n{token_line('ann', b'own')}"
        f"{token_line('ann', b'narrow', ':9')}"
    )
    store = PasswdStore(str(path))
    for token, known in (
        (b"first", Identity("root", uid=0, gid=0)), (b"own", Identity("ann", uid=7, gid=8)),
        (b"narrow", Identity("ann", uid=9)),
    ):  # fmt: skip
        assert said(lambda asker, t=token: store.verify_token("", Secret(t), {}, asker)) == known  # type: ignore[misc]
    message = base64.b64encode(b"n,,\x01auth=Bearer first\x01\x01")
    front = Front("authenticate", "accept", credentials=store, env={"AUTH_REQUIRES_TLS": "0"})
    assert codes(front.say(b"EHLO x\r\nAUTH OAUTHBEARER " + message + b"\r\nAQ==\r\n"))[-1] == 535


def test_h87_salts_and_keys_of_other_lengths_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "passwd"
    keys = derive_keys(PENCIL, b"eight b.", 4096).encode().reveal().decode()
    path.write_text(f"ann:{{SCRAM-SHA-256}}{keys}\n")
    assert "SCRAM-SHA-256" not in PasswdStore(str(path)).mechanisms  # the salts of nobody have 16
    spent = []
    derive = hashlib.pbkdf2_hmac

    def counting(name: str, password: bytes, salt: bytes, iterations: int, size: int = 32) -> bytes:
        spent.append(iterations * (size or 32) // 32)
        return derive(name, password, salt, iterations, size)

    long = base64.b64encode(derive("sha256", b"pencil", b"salt", 500, 64)).decode()
    short = base64.b64encode(derive("sha256", b"pencil", b"salt", 500, 32)).decode()
    path.write_text(f"ann:{{PBKDF2-SHA256}}500$c2FsdA==${long}\nbob:{{PBKDF2-SHA256}}500$c2FsdA==${short}\n")
    store = PasswdStore(str(path))
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting)
    for name, known in (("ann", True), ("bob", True), ("eve", False)):
        spent.clear()
        assert (said(lambda asker, n=name: store.verify_password(n, PENCIL, asker)) is not None) is known  # type: ignore[misc]
        assert sum(spent) == 1000


def test_a_file_of_tokens_alone_takes_no_passwords(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text(token_line("robot", b"three"))
    store = PasswdStore(str(path))
    assert store.mechanisms == ("OAUTHBEARER", "XOAUTH2", "EXTERNAL", "ANONYMOUS") and not store.weak_mechanisms
    assert not store.takes_passwords
    path.write_text("")
    assert PasswdStore(str(path)).mechanisms == ("LOGIN", "PLAIN", "EXTERNAL", "ANONYMOUS")


def test_scram_with_sha_1_is_for_all_or_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "passwd"
    keys = derive_keys(PENCIL, b"sixteen  octets.", 4096, "sha1").encode().reveal().decode()
    path.write_text(f"ann:{{SCRAM-SHA-1}}{keys}\n{token_line('robot', b'three')}")
    store = PasswdStore(str(path))
    assert store.mechanisms[:3] == ("SCRAM-SHA-1", "LOGIN", "PLAIN") and store.iterations == 4096
    assert said(lambda asker: store.verify_password("ann", PENCIL, asker)) == Identity("ann")
    assert said(lambda asker: store.verify_password("ann", WRONG, asker)) is None
    assert said(lambda asker: store.find_keys("ann", "sha256", asker)) is None
    found = said(lambda asker: store.find_keys("ann", "sha1", asker))
    assert found is not None and found.encode().reveal().decode() == keys
    spent = []
    derive = hashlib.pbkdf2_hmac

    def counting(name: str, password: bytes, salt: bytes, iterations: int, size: int | None = None) -> bytes:
        spent.append((name, iterations))
        return derive(name, password, salt, iterations, size)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting)
    for name in ("ann", "bob", "robot"):
        assert said(lambda asker, n=name: store.verify_password(n, WRONG, asker)) is None  # type: ignore[misc]
    assert spent == [("sha1", 4096)] * 3
    for others in SCHEMES:
        path.write_text(f"ann:{{SCRAM-SHA-1}}{keys}\n{lines(('bob', others))}")
        with pytest.raises(ValueError, match="SCRAM-SHA-1 is the scheme of all passwords, or of none"):
            PasswdStore(str(path))


SCHEMES = ("SCRAM-SHA-256", "PBKDF2-SHA256", "PLAIN")


@pytest.mark.parametrize("others", [(), SCHEMES])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_password_file(tmp_path: Path, scheme: str, others: tuple[str, ...]) -> None:
    path = tmp_path / "passwd"
    path.write_text(lines(("ann", scheme), *((f"other{i}", other) for i, other in enumerate(others))))
    store = PasswdStore(str(path))
    ann = Identity("ann", uid=1000, gid=1001, real_name="Ann A.", shell="/bin/sh")
    assert said(lambda asker: store.verify_password("ann", PENCIL, asker)) == ann
    for name, password in (("ann", WRONG), ("bob", PENCIL), ("ann", Secret(b"")), ("bob", Secret(b"\xff"))):
        assert said(lambda asker, n=name, p=password: store.verify_password(n, p, asker)) is None  # type: ignore[misc]
    assert said(lambda asker: store.look_up("ann", asker)) == ann
    assert ("SCRAM-SHA-256" in store.mechanisms) is (scheme == "SCRAM-SHA-256" and not others)
    assert ("CRAM-MD5" in store.weak_mechanisms) is (scheme == "PLAIN" and not others)
    keys = said(lambda asker: store.find_keys("ann", "sha256", asker))
    assert (keys is not None) is (scheme == "SCRAM-SHA-256")
    digest = hmac.digest(b"pencil", b"<1@x>", "md5")
    answered = said(lambda asker: store.verify_response("ann", b"<1@x>", digest, asker))
    assert answered == (ann if scheme == "PLAIN" else None)


@pytest.mark.parametrize(
    "line",
    ["ann", "ann:pencil", "ann:{CRYPT}x", "ann:{PLAIN}", "ann:{SCRAM-SHA-256}x", "ann:{PBKDF2-SHA256}1$$", ":{PLAIN}x",
     "bob:{PLAIN}pencil", "ann:{TOKEN-SHA256}pencil", "ann:{TOKEN-SHA256}" + "0" * 63, "ann:{TOKEN-SHA256}" + "0" * 65,
     "ann:{TOKEN-SHA256}" + "0" * 63 + "\u0660", "eve:{TOKEN-SHA256}" + "1" * 64,
     "ann:{SCRAM-SHA-1}SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:c2FsdA==",
     "ann:{PLAIN}pencil:4294967295", "ann:{PLAIN}pencil:1:4294967295", "ann:{PLAIN}pencil:9999999999"],
)
def test_lines_that_are_none_are_named_and_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "passwd"
    path.write_text(f"bob:{{PLAIN}}x\nbob:{{TOKEN-SHA256}}{'1' * 64}\n{line}\n")
    with pytest.raises(ValueError, match="line 3: write name:") as caught:
        PasswdStore(str(path))
    assert "pencil" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_password_file_or_a_value_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        PasswdStore(str(path))
    except ValueError:
        pass


# -- CVM -------------------------------------------------------------------------------------------------------

FACTS = (
    (Fact.USERNAME, b"joe"), (Fact.USER_ID, b"500"), (Fact.GROUP_ID, b"501"), (Fact.DIRECTORY, b"/home/joe"),
    (Fact.SHELL, b"/bin/sh"), (Fact.REAL_NAME, b"Joe"), (Fact.DOMAIN, b"example.org"), (Fact.MAILBOX, b"./Maildir"),
    (Fact.SUPPLEMENTARY_GROUP_ID, b"7"), (Fact.SUPPLEMENTARY_GROUP_ID, b"8"), (Fact.GROUP_NAME, b"users"),
    (Fact.SYSTEM_USERNAME, b"mail"),
)  # fmt: skip
JOE = Identity(
    "joe", "example.org", "./Maildir", 500, 501, "Joe", "/home/joe", "/bin/sh", "users", (7, 8), "mail"
)
YES = CVMResponse(Code.SUCCESS, FACTS)
NO = CVMResponse(Code.REFUSED)
NOT_MINE = CVMResponse(Code.REFUSED, ((Fact.OUT_OF_SCOPE, b"1"),))
BROKEN = CVMResponse(Code.IO)
EMPTY = CVMRequest(b"x")


def local(response: CVMResponse) -> list[object]:
    return [response.encode(EMPTY), EOF]


def command(response: CVMResponse) -> Program:
    return Program(pipes={1: [response.encode(EMPTY), EOF]}, code=response.code)


def log_in(store: CredentialStore, outside: Outside, **options: object) -> Identity | None:
    return said(lambda asker: store.verify_password("joe@example.org", PENCIL, asker), outside=outside, **options)


def test_facts_of_a_module_on_a_local_socket() -> None:
    store = CVMStore("cvm-local:/run/cvm")
    found, played = ask(
        lambda asker: store.verify_password("joe@example.org", PENCIL, asker),
        Outside(peers={"/run/cvm": local(YES)}),  # type: ignore[dict-item]
    )
    assert found == JOE
    [(_, packet)] = played.peers
    assert packet == CVMRequest(b"joe", b"example.org", PENCIL).encode()
    assert JOE.environment() == {
        "USER": "joe", "UID": "500", "GID": "501", "NAME": "Joe", "HOME": "/home/joe", "SHELL": "/bin/sh",
        "GROUP": "users", "DOMAIN": "example.org", "MAIL": "./Maildir", "MAILBOX": "./Maildir",
        "MAILDIR": "./Maildir", "GIDS": "7,8",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cvm-command:/bin/module", "/bin/module"])
def test_a_module_that_is_a_program(name: str) -> None:
    store = CVMStore(name)
    outside = Outside(programs={"/bin/module": command(YES)})
    settings = {"CVM_PWFILE_PATH": "/x", "CVM_LOOKUP_SECRET": "shared"}
    found, played = ask(lambda asker: store.verify_password("joe", PENCIL, asker), outside, settings, "mx.example")
    assert found == JOE
    [ran] = played.programs
    assert bytes(ran.received[0]) == CVMRequest(b"joe", b"mx.example", PENCIL, Secret(b"shared")).encode()
    assert ran.spawn.environment == {**settings, "PROGRAMS": "have it"}
    assert log_in(store, Outside(programs={"/bin/module": command(NO)})) is None
    refused_by_status = Program(pipes={1: [YES.encode(EMPTY), EOF]}, code=100)
    assert log_in(store, Outside(programs={"/bin/module": refused_by_status})) is None
    for bad in (Program(code=0), Program(pipes={1: [YES.encode(EMPTY), EOF]}, code=-11), Program(seconds=1e6)):
        with pytest.raises(StoreUnavailable, match="cvm-command:/bin/module"):
            log_in(store, Outside(programs={"/bin/module": bad}))


CHAINS = {
    "the first that knows": ((NOT_MINE, YES, NO), JOE, 2),
    "a refusal in scope ends it": ((CVMResponse(100, ((Fact.OUT_OF_SCOPE, b"0"),)), YES), None, 1),
    "one that does not say whose the account is does not": ((NO, YES), JOE, 2),
    "the last word counts": ((NOT_MINE, NO), None, 2),
    "nobody's": ((NOT_MINE, NOT_MINE), None, 2),
    "trouble ends it": ((NOT_MINE, BROKEN, YES), StoreUnavailable, 2),
    "the superuser's": ((CVMResponse(0, ((Fact.USER_ID, b"0"),)), YES), None, 1),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name: str) -> None:
    responses, expected, asked = CHAINS[name]
    places = [f"/run/{number}" for number in range(len(responses))]
    store = CVMStore(",".join(f"cvm-local:{place}" for place in places))
    outside = Outside(peers={place: local(r) for place, r in zip(places, responses, strict=True)})  # type: ignore[misc]
    if isinstance(expected, type):
        with pytest.raises(expected, match="/run/1: temporary error 4"):
            log_in(store, outside)
        return
    found, played = ask(lambda asker: store.verify_password("joe@example.org", PENCIL, asker), outside)
    assert found == expected and len(played.peers) == asked


@pytest.mark.parametrize(
    "peer", [REFUSED, SILENT, [EOF], [b"\0\0\1", EOF], [b"\0" * 600, EOF], [b"\0\0\2\1x\0", EOF]]
)
def test_h65_a_module_that_answers_nonsense_or_not_at_all_is_unavailable(peer: object) -> None:
    with pytest.raises(StoreUnavailable, match="cvm-local:/run/cvm: "):
        log_in(CVMStore("cvm-local:/run/cvm"), Outside(peers={"/run/cvm": peer}))  # type: ignore[dict-item]


def test_h50_udp_tries_four_times_and_wants_its_random_bytes_back() -> None:
    address = ("cvm.example", 5000)
    forged = YES.encode(CVMRequest(b"x", random_bytes=b"12345678"))
    store = CVMStore("cvm-udp:cvm.example:5000")
    begun: list[float] = []

    async def session(connection: Connection) -> int:
        begun.append(connection.clock.monotonic())
        try:
            await store.verify_password("joe", PENCIL, Asker(begun[0] + 90))
        except StoreUnavailable as error:
            assert "no answer in time" in str(error)
            begun.append(connection.clock.monotonic())
        return 0

    played = run_script(session, [], outside=Outside(datagrams={address: [forged]}))
    assert played.error is None and begun[1] - begun[0] == 30
    packets = [packet for _, packet in played.peers]
    assert packets and all(packet[:2] == b"\2\x08" for packet in packets)


@pytest.mark.parametrize("username, password", [("j" * 256, b"x"), ("joe", b"x" * 256), ("joe", b"x\0y")])
def test_h49_what_no_packet_can_carry_is_refused_and_asked_nobody(username: str, password: bytes) -> None:
    store = CVMStore("cvm-local:/run/cvm")
    found, played = ask(lambda asker: store.verify_password(username, Secret(password), asker))
    assert found is None and played.peers == []


def test_h49_an_empty_password_is_sent_as_empty() -> None:
    store = CVMStore("cvm-local:/run/cvm")
    _, played = ask(
        lambda asker: store.verify_password("joe", Secret(b""), asker),
        Outside(peers={"/run/cvm": local(NO)}),  # type: ignore[dict-item]
    )
    assert b"\3\0" in played.peers[0][1]


@pytest.mark.parametrize("text", ["", "cvm-udp:host", "cvm-udp::5", "cvm-udp:h:0", "cvm-udp:h:x", "cvm-local:", "a,,b"])
def test_names_of_no_module(text: str) -> None:
    with pytest.raises(ValueError, match="names no module"):
        parse_modules(text)


@given(st.text(max_size=40))
def test_any_text_names_modules_or_is_a_value_error(text: str) -> None:
    try:
        modules = parse_modules(text)
    except ValueError:
        return
    assert parse_modules(",".join(map(str, modules))) == modules or any("[" in str(m) for m in modules)


def test_cvm_validate_leaves_others_their_say() -> None:
    def front(response: object, **environment: str) -> tuple[bytes, Played]:
        server = Front("cvm-validate", "accept", env={"CVM_LOOKUP": "cvm-local:/run/cvm", **environment})
        script: list[Action] = [b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<joe@example.org>\r\n", EOF]
        played = server.play(script, outside=Outside(peers={"/run/cvm": response}), all_read=False)  # type: ignore[dict-item]
        return played.output.splitlines()[-1], played

    assert front(local(YES))[0].startswith(b"250 ")
    assert front(local(NOT_MINE))[0].startswith(b"250 ")
    assert front(local(NO))[0] == b"553 5.1.1 Sorry, that recipient does not exist."
    assert front(local(BROKEN))[0].startswith(b"451 4.1.0 Sorry, I could not verify")
    assert front(SILENT)[0].startswith(b"451 4.1.0 ")
    with_secret = front(local(YES), LOOKUP_SECRET="shared")[1].peers[0][1]
    assert with_secret == CVMRequest(b"joe", b"example.org", secret=Secret(b"shared")).encode()


# -- what a session offers, and how it answers --------------------------------------------------------------------


def plain(user: str, password: str) -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()) + b"\r\n"


def offered(store: CredentialStore, **environment: str) -> list[str]:
    output = Front("authenticate", "accept", credentials=store, env=environment).say(b"EHLO x\r\n")
    return next((line[4:].split()[1:] for line in output.decode().splitlines() if line[4:9] == "AUTH "), [])


def test_h39_only_what_exposes_nothing_is_offered_without_tls(database: UserDatabase) -> None:
    store = SQLiteStore(database.path)
    assert offered(store) == ["SCRAM-SHA-256"]
    assert offered(store, AUTH_REQUIRES_TLS="0") == ["SCRAM-SHA-256", "LOGIN", "PLAIN"]
    assert offered(store, AUTH_REQUIRES_TLS="0", AUTH_MECHANISMS="plain") == ["PLAIN"]
    static = StaticStore({"ann": PENCIL})
    assert offered(static) == []
    assert offered(static, AUTH_REQUIRES_TLS="0") == ["LOGIN", "PLAIN"]
    assert offered(static, AUTH_REQUIRES_TLS="0", AUTH_MECHANISMS="CRAM-MD5:PLAIN") == ["PLAIN", "CRAM-MD5"]


def test_h43_failures_of_the_machine_wait_like_those_of_the_store() -> None:
    front = Front(
        "authenticate", "accept", credentials=StaticStore({"ann": PENCIL}),
        env={"AUTH_REQUIRES_TLS": "0", "AUTH_FAILURE_DELAY": "3"},
    )  # fmt: skip

    def waited(said: bytes) -> float:
        return front.play([b"EHLO x\r\n" + said, EOF], all_read=False).elapsed

    assert waited(plain("ann", "pencil")) == 0
    assert waited(plain("ann", "pen")) == waited(plain("bob", "pencil")) == 3
    assert waited(b"AUTH PLAIN ====\r\n") == waited(b"AUTH PLAIN eA==\r\n") == 3
    assert waited(b"AUTH NONE\r\n") == waited(b"AUTH PLAIN\r\n*\r\n") == 0


def test_a_store_that_hangs_is_a_temporary_failure() -> None:
    class Hangs(CredentialStore):
        mechanisms = ("PLAIN",)

        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            await Thread(clock.advance, 1000.0)
            return None

    clock = VirtualClock()
    front = Front("authenticate", "accept", credentials=Hangs(), env={"AUTH_REQUIRES_TLS": "0"})
    played = front.play([b"EHLO x\r\n" + plain("ann", "x"), EOF], clock=clock, all_read=False)
    assert 454 in codes(played.output) or 421 in codes(played.output)
    assert "credential store: it did not answer in time" in front.log


ODD_FACTS: list[dict[str, Any]] = [
    {"username": b"ann"}, {"mailbox": None}, {"uid": "0"}, {"uid": False}, {"uid": 1.5}, {"uid": -1},
    {"uid": 0xFFFF_FFFF}, {"gid": 0xFFFF_FFFF}, {"groups": (-1,)},
]  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [True, "ann", b"ann", object(), *(Identity(**{"username": "ann", **facts}) for facts in ODD_FACTS)],
    ids=range(4 + len(ODD_FACTS)),
)
def test_h51_what_can_be_no_user_logs_nobody_in(odd: Any) -> None:
    """To the system 2^32 - 1 is no id: a program that is to run as that goes on as the superuser."""

    class Odd(CredentialStore):
        mechanisms = ("PLAIN",)

        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            found: Identity = odd
            return found

    front = Front("authenticate", "accept", credentials=Odd(), env={"AUTH_REQUIRES_TLS": "0"})
    assert codes(front.say(b"EHLO x\r\n" + plain("ann", "x"))) == [220, 250, 454]
    assert "credential store: its answer is no Identity of text and of ids from 0 to 4294967294" in front.log


def test_a_login_is_forgotten_with_its_settings() -> None:
    class Knows(CredentialStore):
        mechanisms = ("PLAIN",)

        async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
            return JOE

    from mailfront_io.session import Session
    session = Session(Connection(VirtualClock()), {"HOME": "/root"}, print)
    session.log_in(JOE)
    assert session.getenv("HOME") == "/home/joe" and session.exported_env()["GIDS"] == "7,8"
    assert session.strings["auth_realname"] == "Joe" and session.numbers["auth_uid"] == 500
    session.log_out()
    assert session.getenv("HOME") == "/root" and session.getenv("GIDS") is None
    assert not session.strings and not session.authenticated


@pytest.mark.parametrize(
    "name",
    ["", "x", "sqlite:", "mysql:x", "static:/nowhere/at/all", "passwd:/nowhere", "sqlite:/nowhere", "class:x",
     "class:no_such_module:Store", "class:mailfront_io.auth.static:Nothing", "class:mailfront_io.ops:Connection",
     "class:mailfront_io.auth.static:StaticStore", "class:tests.io.test_auth_stores:Faulty", "class:json", "class::",
     "class:json:"],
)
def test_stores_that_cannot_be_opened_say_why(name: str) -> None:
    with pytest.raises(ValueError, match=r"^\$AUTH_STORE"):
        open_named_store(name)


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"mechanisms": "PLAIN"}, "mechanisms is 'PLAIN': make it a tuple of names out of PLAIN, LOGIN, "),
        ({"mechanisms": None}, "mechanisms is None: make it"),
        ({"mechanisms": ("plain",)}, "make it a tuple"),
        ({"mechanisms": ("PLAIN", "SCRAM-SHA-256-PLUS")}, "make it a tuple"),
        ({"weak_mechanisms": (b"PLAIN",)}, "weak_mechanisms is"),
        ({"mechanisms": ("SCRAM-SHA-1",)}, "SCRAM needs a salt_secret: make it a Secret of 16 octets"),
        ({"mechanisms": ("SCRAM-SHA-1",), "salt_secret": Secret(b"short")}, "SCRAM needs a salt_secret"),
    ],
)
def test_what_a_store_of_somebody_s_own_cannot_offer(
    attributes: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type("Own", (CredentialStore,), attributes)
    monkeypatch.setattr(sys.modules[__name__], "Own", kind, raising=False)
    with pytest.raises(ValueError, match=rf"^\$AUTH_STORE: .*:Own: {why}|:Own: .*{why}"):
        open_named_store(f"class:{__name__}:Own")


@pytest.mark.parametrize("kind", ["passwd", "static"])
def test_a_file_of_other_bytes_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"ann:{PLAIN}pencil\nbob:{PLAIN}\xff\n")
    with pytest.raises(ValueError, match=rf"^\$AUTH_STORE: {path} is not UTF-8: write it anew\Z"):
        open_named_store(f"{kind}:{path}")


class Faulty(CredentialStore):
    """One that cannot be made."""

    def __init__(self) -> None:
        raise KeyError("DIRECTORY_URL")


def test_stores_by_name(database: UserDatabase, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text(lines(("ann", "PLAIN")))
    (tmp_path / "static").write_text("ann:pencil\n")
    kinds = {
        f"sqlite:{database.path}": SQLiteStore,
        f"passwd:{tmp_path}/passwd": PasswdStore,
        f"static:{tmp_path}/static": StaticStore,
        "cvm:cvm-local:/run/cvm": CVMStore,
        "class:mailfront_io.auth.store:CredentialStore": CredentialStore,
    }
    for name, kind in kinds.items():
        assert type(open_named_store(name)) is kind


def test_the_channel_binding_is_the_hash_that_the_signature_names(tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    from mailfront_io.tls import server_context, server_end_point
    from tests.certificates import write_pem

    path = write_pem(tmp_path)
    context = server_context({"TLS_CERTFILE": str(path)}.get)
    certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    assert certificate.signature_hash_algorithm is not None
    name = certificate.signature_hash_algorithm.name
    expected = hashlib.new(name, certificate.public_bytes(serialization.Encoding.DER)).digest()
    assert server_end_point(context) == expected
    assert server_end_point(None) == b""
    assert os.path.exists(path)
