"""A maildir as the mailbox of a session: what is in it, in which order, and what the end of a session does to it."""

import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailfront_io.mailboxes import maildir
from mailfront_io.mailboxes import maildir_names as names
from mailfront_io.mailboxes.location import Location, open_directory, user_location
from mailfront_io.mailboxes.maildir import PIECE, CannotOpen, MaildirMailbox


def make(place: Path, *files: str, content: bytes = b"x\n") -> Path:
    """A maildir with files of these names, ``new/1`` for one."""
    for part in ("cur", "new", "tmp"):
        (place / part).mkdir(parents=True, exist_ok=True)
    for name in files:
        (place / name).write_bytes(content)
    return place


def opened(
    place: Path, *, max_messages: int = 0, max_cur: int = 0, max_new: int = 0, compat: bool = False
) -> MaildirMailbox:
    mailbox = MaildirMailbox(
        Location(str(place)), max_messages=max_messages, max_cur=max_cur, max_new=max_new, compat=compat
    )
    mailbox.open()
    return mailbox


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def whole(mailbox: MaildirMailbox, number: int) -> bytes:
    pieces = []
    data, more = mailbox.begin_message(number)
    pieces.append(data)
    while more:
        data, more = mailbox.next_piece()
        pieces.append(data)
    return b"".join(pieces)


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("1.a", 0),
        ("1.a,S=5", 5),
        ("1.a,S=5,W=7:2,S", 7),
        ("1.a,W=7,S=5", 7),
        ("1.a,X=1,S=5", 5),
        ("1.a,b,S=5", 0),
        ("1.a:2,F,S=5", 0),
        ("1.a,S=+5", 0),
        ("1.a,S=-5", 0),
        ("1.a,S= 5", 0),
        ("1.a,S=\u0665", 0),
        ("1.a,S=" + "9" * 200, 0),
    ],
)
def test_size_in_a_name(name: str, size: int) -> None:
    assert names.size(name) == size


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("1.a", "1.a:2,S"),
        ("1.a,S=5", "1.a,S=5:2,S"),
        ("1.a:2,", "1.a:2,S"),
        ("1.a:2,F", "1.a:2,FS"),
        ("1.a:2,FS", "1.a:2,FS"),
        ("1.a:1,x", "1.a:1,x"),
        ("1.a:", "1.a:"),
    ],
)
def test_the_flag_for_read(name: str, seen: str) -> None:
    assert names.with_seen(name) == seen
    assert list(names.read_numbers([seen])) == ([1] if ":2," in seen else [])


@given(st.lists(st.from_regex(r"[0-9]{0,14}[.a-z]{0,3}", fullmatch=True)))
def test_order_is_by_the_leading_integer(found: list[str]) -> None:
    numbered = [name for name in found if name[:1].isdigit()]

    def number(name: str) -> int:
        return int("".join(c for c in name if c.isdigit()))

    assert [number(name) for name in sorted(numbered, key=names.order)] == sorted(map(number, numbered))
    others = [name for name in found if not name[:1].isdigit()]
    mixed = sorted(found, key=names.order)
    assert [name for name in mixed if name in others] == sorted(others)
    for by_number_alone, before in ((False, sorted(found)), (True, found)):
        in_place = found.copy()
        names.sort(in_place, by_number_alone)
        assert in_place == sorted(before, key=names.order)


fragments = st.sampled_from(
    ["1700000001", "17000000012", "0700000001", "5", ".a", "\n", ":2,S", ":2,", ":2,FS", ":", "S", ",S=5"]
)


@given(st.lists(st.lists(fragments, min_size=1, max_size=5).map("".join), max_size=8))
@example(["a:2,:2,S", "a:2,S:2,S"])
@example(["1700000001.a:2,S"] * 7)
def test_names_looked_at_together_are_what_each_is(found: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "_BLOCK", 3)
        assert names.are_usual(found) == all(re.match("[1-9][0-9]{9}(?![0-9])", name) for name in found)
        assert list(names.read_numbers(found)) == [
            number for number, name in enumerate(found, 1) if re.match("[^:]*:2,[^S]*S", name)
        ]
    uids = names.UniqueIds(found, cut=False)
    assert uids[:] == [names.split(name)[0].encode() for name in found] == list(uids)
    cut = names.UniqueIds(["a" * 80 + name for name in found], cut=True)
    assert cut[1:] == [b"a" * 70 for _ in found[1:]]


# -- what is in it -----------------------------------------------------------------------------------------


def test_order_sizes_uids_and_marks(tmp_path: Path) -> None:
    place = make(
        tmp_path,
        *("new/1700000003.M2.h", "new/1700000003.M1.h,S=30,W=33", "cur/5.old:2,S", "cur/17000000001.far:2,FS"),
        *("cur/zz:1,x", "cur/-1", "cur/.hidden", "new/1700000001.c,S=0"),
    )
    mailbox = opened(place)
    uids = [b"-1", b"5.old", b"1700000001.c", b"1700000003.M1.h", b"1700000003.M2.h", b"17000000001.far", b"zz"]
    assert list(mailbox.uids) == uids
    assert mailbox.uids[1:3] == uids[1:3]
    assert list(mailbox.sizes) == [2, 2, 2, 33, 2, 2, 2]
    assert list(mailbox.read) == [2, 6]
    mailbox.close()


def test_limits(tmp_path: Path) -> None:
    place = make(tmp_path, *(f"cur/{n}" for n in range(5)), *(f"new/{n}" for n in range(5, 10)))
    for limits, count in (
        ((0, 0, 0), 10),
        ((3, 0, 0), 3),
        ((7, 0, 0), 7),
        ((0, 2, 0), 7),
        ((0, 2, 1), 3),
        ((2, 9, 9), 2),
    ):
        mailbox = opened(place, max_messages=limits[0], max_cur=limits[1], max_new=limits[2])
        assert len(mailbox.sizes) == count
        mailbox.close()


@pytest.mark.parametrize("missing", ["cur", "new", ""])
def test_no_maildir(tmp_path: Path, missing: str) -> None:
    place = make(tmp_path / "md")
    (place / "tmp").rmdir()
    for part in [missing] if missing else ["cur", "new", ""]:
        (place / part).rmdir()
    mailbox = MaildirMailbox(Location(str(place)))
    with pytest.raises(CannotOpen, match="No such file") as caught:
        mailbox.open()
    assert caught.value.answer == ("Could not access maildir" if missing else "Could not chdir to maildir")
    mailbox.close()


def test_nothing_stays_open(tmp_path: Path) -> None:
    def descriptors() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    place = make(tmp_path, "cur/1", content=b"x" * (PIECE + 1))
    before = descriptors()
    mailbox = opened(place)
    data, more = mailbox.begin_message(1)
    assert more and len(data) == PIECE
    mailbox.close()
    assert descriptors() == before
    (place / "new").rmdir()
    broken = MaildirMailbox(Location(str(place)))
    with pytest.raises(CannotOpen):
        broken.open()
    broken.close()
    assert descriptors() == before


def test_closing_waits_for_what_is_at_work(tmp_path: Path) -> None:
    place = make(tmp_path, "cur/1")
    mailbox = opened(place)
    begun, go_on = threading.Event(), threading.Event()
    real = mailbox._open

    def slow(number: int) -> int:
        begun.set()
        assert go_on.wait(10)
        return real(number)

    mailbox._open = slow  # type: ignore[method-assign]
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(mailbox.begin_message(1)[0]))
    thread.start()
    assert begun.wait(10)
    mailbox.close()
    assert mailbox._cur >= 0  # it is in use
    go_on.set()
    thread.join()
    assert found == [b"x\n"]
    assert mailbox._cur == -1
    with pytest.raises(OSError, match="Bad file"):
        mailbox.begin_message(1)


# -- messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_messages_of_every_size(tmp_path: Path, size: int) -> None:
    content = (b"0123456789" * size)[:size]
    mailbox = opened(make(tmp_path, "new/1", "cur/2", content=content))
    assert whole(mailbox, 1) == whole(mailbox, 2) == content
    mailbox.close()


def test_a_message_that_is_gone(tmp_path: Path) -> None:
    place = make(tmp_path, "cur/1", "cur/2")
    mailbox = opened(place)
    (place / "cur/1").unlink()
    with pytest.raises(FileNotFoundError):
        mailbox.begin_message(1)
    assert whole(mailbox, 2) == b"x\n"
    assert mailbox.update([1], [2]) == (0, [])
    assert files(place) == ["cur/2:2,S"]
    mailbox.close()


def test_messages_that_another_program_has_moved(tmp_path: Path) -> None:
    """It reads them, and gives them flags, while our session goes on."""
    place = make(tmp_path, "new/1", "new/2", "cur/3:2,", "cur/4:2,")
    mailbox = opened(place)
    (place / "new/1").rename(place / "cur/1:2,S")
    (place / "new/2").rename(place / "cur/2:2,")
    (place / "cur/3:2,").rename(place / "cur/3:2,F")
    (place / "cur/4:2,").unlink()
    assert whole(mailbox, 1) == whole(mailbox, 3) == b"x\n"
    assert mailbox.update([1, 3, 4], []) == (0, [])
    assert files(place) == ["cur/2:2,"]
    mailbox.close()


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("at_once", [1, 3, 500])
def test_messages_moved_while_the_mailbox_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, compat: bool
) -> None:
    """Between the names and the sizes another program reads them, gives them flags, and deletes some."""
    place = make(tmp_path, "new/1", "new/2", "cur/3:2,", "cur/4:2,", "cur/5:2,", "cur/5:2,S", "new/6,S=9", "cur/7:2,")
    sort = names.sort

    def meanwhile(found: list[str], by_number_alone: bool) -> None:
        sort(found, by_number_alone)
        (place / "new/1").rename(place / "cur/1:2,S")
        (place / "cur/3:2,").rename(place / "cur/3:2,FS")
        (place / "cur/4:2,").unlink()
        (place / "cur/5:2,").unlink()  # the directory was read while it got its other name: both were there

    monkeypatch.setattr(maildir, "_AT_ONCE", at_once)
    monkeypatch.setattr(names, "sort", meanwhile)
    mailbox = opened(place, compat=compat)
    assert list(mailbox.uids) == [b"1", b"2", b"3", b"5", b"6", b"7"]
    assert list(mailbox.sizes) == [2, 2, 2, 2, 9, 2]
    assert list(mailbox.read) == [1, 3, 4]
    assert [whole(mailbox, number) for number in range(1, 7)] == [b"x\n"] * 6
    assert mailbox.update([1, 4], []) == (0, [])
    assert files(place) == ["cur/2", "cur/3:2,FS", "cur/6,S=9", "cur/7:2,"]
    mailbox.close()


def test_deliveries_meanwhile_stay_as_they_are(tmp_path: Path) -> None:
    place = make(tmp_path, "new/1")
    mailbox = opened(place)
    make(tmp_path, "new/2")
    assert len(mailbox.sizes) == 1
    assert mailbox.update([1], []) == (0, [])
    assert files(place) == ["new/2"]
    mailbox.scan()
    assert list(mailbox.uids) == [b"2"]
    mailbox.close()


# -- the end of a session ----------------------------------------------------------------------------------


def test_update(tmp_path: Path) -> None:
    place = make(tmp_path, "cur/1:2,", "cur/2:2,F", "new/3", "new/4", "new/5", "cur/6:1,x")
    mailbox = opened(place)
    assert mailbox.update([1, 5], [2, 3, 6]) == (0, [])
    assert files(place) == ["cur/2:2,FS", "cur/3:2,S", "cur/4", "cur/6:1,x"]
    mailbox.close()


def test_update_overwrites_nothing(tmp_path: Path) -> None:
    place = make(tmp_path, "new/1")
    (place / "cur/1").write_bytes(b"another\n")
    mailbox = opened(place)
    left, errors = mailbox.update([], [])
    assert (left, [error.strerror for error in errors]) == (0, ["File exists"])
    assert (place / "cur/1").read_bytes() == b"another\n"
    assert (place / "new/1").read_bytes() == b"x\n"
    mailbox.close()


def test_update_tells_what_could_not_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make(tmp_path, "cur/1", "cur/2", "cur/3")
    mailbox = opened(place)
    real = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        if name == "2":
            raise PermissionError(13, "Permission denied")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    left, errors = mailbox.update([1, 2], [3])
    assert left == 1
    assert [error.strerror for error in errors] == ["Permission denied"]
    assert files(place) == ["cur/2", "cur/3:2,S"]
    mailbox.close()


# -- locations ---------------------------------------------------------------------------------------------


def test_where_a_user_s_mailbox_is() -> None:
    assert user_location("/root", "joe", "") == Location("joe", "/root")
    assert user_location("/root", "joe", "/home/joe/Maildir") == Location("/home/joe/Maildir")
    assert user_location("/root", "joe", "example.org/joe") == Location("example.org/joe", "/root")
    assert user_location(None, "joe", "") is None
    assert user_location(None, "joe", "joe") is None
    assert user_location("/root", "a/b", "") is None
    assert str(Location("joe", "/root")) == "/root/joe"


def test_directories_below_a_root(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    os.close(open_directory(Location("a/b", str(tmp_path))))
    os.close(open_directory(Location(str(tmp_path / "a"))))
    with pytest.raises(FileNotFoundError):
        open_directory(Location("a/c", str(tmp_path)))
