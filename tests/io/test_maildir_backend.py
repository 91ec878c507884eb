"""Maildirs of recipients: which one, who has none, who has a full one, and an answer for each."""

import os
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.backends import maildir
from mailfront_io.backends.maildir import NO_MAILBOX, fill
from mailfront_io.mailboxes.location import Location
from mailfront_io.ops import Sleep
from mailfront_io.settings import ConfigurationError
from mailfront_io.testing import EOF
from tests.front import Front, codes

HELLO = b"EHLO x\r\nMAIL FROM:<a@example.net>\r\n"
BODY = b"Subject: x\r\n\r\nbody\r\n.\r\n"
STORED = b"Return-Path: <a@example.net>\nSubject: x\n\nbody\n"


def make(place: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (place / name).mkdir(parents=True)
    return place


def messages(place: Path) -> list[bytes]:
    return [path.read_bytes() for path in (place / "new").iterdir()]


def said(*recipients: str, mail: bytes = HELLO) -> bytes:
    return mail + b"".join(f"RCPT TO:<{recipient}>\r\n".encode() for recipient in recipients) + b"DATA\r\n"


@pytest.mark.parametrize(
    ("pattern", "address", "found"),
    [
        ("/var/mail/all", "A@B.org", Location("/var/mail/all")),
        ("/var/mail/%d/%n", "Ann@B.org", Location("b.org/ann", "/var/mail")),
        ("/var/mail/%u/", "Ann@B.org", Location("ann@b.org", "/var/mail")),
        ("/var/mail/box-%n", "ann@b.org", Location("box-ann", "/var/mail")),
        ("%n", "ann", Location("ann", ".")),
        ("/%n/Maildir", "ann@b.org", Location("ann/Maildir", "/")),
        ("/v/%n", "a@b@c", Location("a@b", "/v")),
        ("/v/%d", "ann", NO_MAILBOX),
        ("/v/%n", "@b.org", NO_MAILBOX),
        ("/v/%n", "a/b@c", NO_MAILBOX),
        ("/v/%n", "a@b/c", Location("a", "/v")),
    ],
)
def test_what_a_pattern_stands_for(pattern: str, address: str, found: object) -> None:
    assert fill(pattern, address) == found


@pytest.mark.parametrize("pattern", ["/v/%x", "/v/%", "/v/%%n"])
def test_a_pattern_that_is_none_is_told_at_the_start(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\$MAILDIR_PATH: %.? is none of %u, %n and %d: write one of them"):
        Front("accept", backend="maildir", env={"MAILDIR_PATH": pattern})
    with pytest.raises(ValueError, match="MAILDIR_PATH"):  # it may also be assigned to a session
        fill(pattern, "b@c")


def test_each_recipient_has_a_copy_and_nobody_two(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        make(tmp_path / name)
    front = Front("accept", backend="maildir", env={"MAILDIR_PATH": f"{tmp_path}/%n"})
    assert codes(front.say(said("ann@x", "bob@x", "ANN@y", "nobody@x"), BODY))[3:] == [250, 250, 250, 550, 354, 250]
    assert messages(tmp_path / "ann") == messages(tmp_path / "bob") == [STORED]


@pytest.mark.parametrize(("protocol", "answers"), [("smtp", [451]), ("lmtp", [250, 451, 250])])
def test_a_copy_that_cannot_be_stored(protocol: str, answers: list[int], tmp_path: Path) -> None:
    """LMTP says of whom; SMTP has one answer, and the client tries again for all."""
    for name in ("ann", "bob", "cat"):
        make(tmp_path / name)
    front = Front("accept", backend="maildir", env={"MAILDIR_PATH": f"{tmp_path}/%n"}, protocol=protocol)
    hello = HELLO.replace(b"EHLO", b"LHLO") if protocol == "lmtp" else HELLO

    store = maildir._deliver_to

    def fails_for_bob(location: Location, *rest: Any) -> None:
        if location.path == "bob":
            raise OSError(5, "Input/output error")
        store(location, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maildir, "_deliver_to", fails_for_bob)
        output = front.say(said("ann@x", "bob@x", "cat@x", mail=hello), BODY)
    assert codes(output)[-len(answers) :] == answers
    assert messages(tmp_path / "ann") == messages(tmp_path / "cat") == [STORED]
    assert f"maildir: {tmp_path}/bob: Input/output error" in front.log


class Users(CredentialStore):
    """Knows ``ann``, ``joe@x.org`` and ``abs``; says nothing of ``late``, nor of ``gone`` in time."""

    def __init__(self, place: Path) -> None:
        self._mailboxes = {"ann": "", "joe@x.org": "x.org/joe", "abs": str(place / "elsewhere")}

    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        if name == "late":
            raise StoreUnavailable("the store is away")
        if name == "gone":
            await Sleep(1e6)
        return Identity(name, mailbox=self._mailboxes[name]) if name in self._mailboxes else None


def test_recipients_that_the_store_knows(tmp_path: Path) -> None:
    root = tmp_path / "root"
    places = {"ann": make(root / "ann"), "joe": make(root / "x.org" / "joe"), "abs": make(tmp_path / "elsewhere")}
    front = Front("accept", backend="maildir", env={"MAILDIR_ROOT": str(root)}, credentials=Users(tmp_path))
    output = front.say(said("ann@x.org", "joe@x.org", "abs@y.org", "joe@y.org", "late@x.org"), BODY)
    assert codes(output)[3:] == [250, 250, 250, 550, 451, 354, 250]
    assert all(messages(place) == [STORED] for place in places.values())
    assert "maildir: the store is away" in front.log


def test_a_store_that_hangs_defers_the_recipient(tmp_path: Path) -> None:
    front = Front("accept", backend="maildir", env={"MAILDIR_ROOT": str(tmp_path)}, credentials=Users(tmp_path))
    played = front.play([said("gone@x.org"), EOF], all_read=False)
    assert 451 in codes(played.output) and played.elapsed <= 600


def test_without_a_store_nobody_is_known(tmp_path: Path) -> None:
    output = Front("accept", backend="maildir", env={"MAILDIR_ROOT": str(tmp_path)}).say(said("ann@x"))
    assert b"451 4.3.0 Missing backend configuration parameter\r\n" in output


def test_a_maildir_is_made_where_that_is_asked_for(tmp_path: Path) -> None:
    env = {"MAILDIR_PATH": f"{tmp_path}/mail/%d/%n"}
    (tmp_path / "mail").mkdir()
    assert codes(Front("accept", backend="maildir", env=env).say(said("ann@x.org")))[3] == 550
    assert os.listdir(tmp_path / "mail") == []
    env["MAILDIR_CREATE"] = ""
    assert codes(Front("accept", backend="maildir", env=env).say(said("ann@x.org"), BODY))[-1] == 250
    assert messages(tmp_path / "mail" / "x.org" / "ann") == [STORED]
    (tmp_path / "mail").rename(tmp_path / "away")  # the root is the administrator's to make
    assert codes(Front("accept", backend="maildir", env=env).say(said("ann@x.org")))[3] == 451


def quota(place: Path, limit: int, **env: str) -> Front:
    return Front("accept", backend="maildir", env={"MAILDIR_PATH": str(place), "MAILDIR_QUOTA": str(limit), **env})


def test_a_full_maildir_is_told_before_the_message(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path / ".Sent")
    (tmp_path / "cur" / "1.x.host,S=400,W=410:2,S").write_bytes(b"?")  # what its name says
    (tmp_path / "new" / "2.x.host").write_bytes(b"x" * 300)
    (tmp_path / ".Sent" / "cur" / "3.x.host,S=250:2,").write_bytes(b"")
    (tmp_path / "tmp" / "4.x.host").write_bytes(b"x" * 10_000)
    assert codes(quota(tmp_path, 951).say(said("b@x"), BODY))[-1] == 250
    assert codes(quota(tmp_path, 951).say(said("b@x")))[3] == 452
    assert codes(quota(tmp_path, 950).say(said("b@x")))[3] == 452
    declared = HELLO.replace(b">", b"> SIZE=100")
    assert codes(quota(tmp_path, 1090).say(said("b@x", mail=declared)))[3] == 452
    assert codes(quota(tmp_path, 1200).say(said("b@x", mail=declared), BODY))[-1] == 250


def test_a_message_that_is_larger_than_a_mailbox_is_refused_for_good(tmp_path: Path) -> None:
    make(tmp_path)
    declared = HELLO.replace(b">", b"> SIZE=1001")
    output = quota(tmp_path, 1000).say(said("b@x", mail=declared))
    assert b"552 5.2.3 The message is larger than a mailbox may be\r\n" in output
    output = quota(tmp_path, 10).say(said("b@x"), BODY)
    assert output.endswith(b"552 5.2.3 The message is larger than a mailbox may be\r\n")
    assert messages(tmp_path) == []


def test_a_server_wants_one_of_the_two_settings() -> None:
    from mailfront_io.settings import ConfigurationError

    with pytest.raises(ConfigurationError, match="MAILDIR_PATH is not set"):
        Front("accept", backend="maildir").service.check_required()
    Front("accept", backend="maildir", env={"MAILDIR_ROOT": "/x"}).service.check_required()
    Front("accept", backend="maildir", env={"MAILDIR_PATH": "/x"}).service.check_required()


def test_a_package_for_nobody(tmp_path: Path) -> None:
    """The original takes it, and so does the compat profile: there is nobody who could lack it."""
    make(tmp_path / "ann")
    for protocol, data in (("qmtp", b"3:\nx\n,3:a@b,0:,"), ("qmqp", b"11:2:x\n,3:a@b,,")):
        env = {"MAILDIR_PATH": f"{tmp_path}/%n", "MAILFRONT_PROFILE": "compat"}
        front = Front("accept", backend="maildir", env=env, protocol=protocol)
        assert front.say(data) == b"24:K2.6.0 Message accepted.,"
    assert messages(tmp_path / "ann") == []
