"""Disks that fail, and the modes of files: H82, H90."""

import errno
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailfront_io.spool import MEMORY_LIMIT, Spool
from tests.front import ENVELOPE, Front, codes

DATA = ENVELOPE + b"DATA\r\n"
BODY = b"Subject: x\r\n\r\nbody\r\n.\r\n"


@pytest.fixture(params=["queuedir", "maildir", "queuedir named", "maildir named"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Front, Path]:
    """A front end that stores, and where; also on a file system without files that have no name."""
    backend, _, named = request.param.partition(" ")
    if named:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir(mode=0o700)
    env = {"QUEUEDIR" if backend == "queuedir" else "MAILDIR_PATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    return Front("accept", backend=backend, env=env), tmp_path


def failing(function: Callable[..., Any], when: int, error: int) -> Callable[..., Any]:
    """`function`, but its call number `when` (from 1) fails with `error`."""
    calls = 0

    def call(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == when:
            raise OSError(error, os.strerror(error))
        return function(*arguments, **keywords)

    return call


def check_refused_and_clean(front: Front, place: Path, output: bytes) -> None:
    """451 for that message, nothing stored, nothing left, and the next message goes through."""
    assert 451 in codes(output)
    assert sum(code == 250 for code in codes(output)[3:]) <= 1  # RCPT
    for name in ("tmp", "new", "cur"):
        assert list((place / name).iterdir()) == []


# name, the call of it that fails (for both backends; those that there are not are passed over)
FAILURES = [
    ("write", 1, errno.ENOSPC), ("write", 2, errno.ENOSPC), ("write", 1, errno.EDQUOT), ("write", 2, errno.EIO),
    ("fsync", 1, errno.EIO), ("fsync", 1, errno.ENOSPC), ("fsync", 2, errno.EIO), ("link", 1, errno.ENOSPC),
    ("link", 1, errno.EROFS), ("open", 1, errno.ENOSPC), ("open", 1, errno.EROFS),
    ("open", 1, errno.EMFILE), ("open", 2, errno.EMFILE), ("open", 1, errno.EACCES),
    ("open", 3, errno.ENOSPC), ("open", 4, errno.EDQUOT),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "when", "error"), FAILURES, ids=[f"{n}-{w}-{errno.errorcode[e]}" for n, w, e in FAILURES]
)
def test_h82_a_disk_that_fails_acknowledges_nothing(
    store: tuple[Front, Path], name: str, when: int, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, place = store
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(getattr(os, name), when, error))
        output = front.say(DATA, BODY)
    check_refused_and_clean(front, place, output)
    assert any(os.strerror(error) in line for line in front.log)
    assert len(os.listdir("/proc/self/fd")) == before
    assert codes(front.say(DATA, BODY))[-1] == 250
    assert len(list((place / "new").iterdir())) == 1 and list((place / "tmp").iterdir()) == []


def test_a_name_that_is_taken_is_not_used(store: tuple[Front, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process with our number, on another host."""
    front, place = store
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", failing(os.link, 1, errno.EEXIST))
        output = front.say(DATA, BODY)
    assert codes(output)[-1] == 250
    assert len(list((place / "new").iterdir())) == 1 and list((place / "tmp").iterdir()) == []


def test_h82_a_short_write_is_continued(store: tuple[Front, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    front, place = store
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
        output = front.say(DATA, BODY)
    assert codes(output)[-1] == 250
    (file,) = (place / "new").iterdir()
    assert file.read_bytes().endswith(b"Subject: x\n\nbody\n")


def test_h82_a_stored_message_is_acknowledged_although_its_temporary_name_stays(
    store: tuple[Front, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on disk under its final name: to refuse it now would only make a second copy."""
    front, place = store
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", failing(os.unlink, 1, errno.EIO))
        output = front.say(DATA, BODY)
    assert codes(output)[-1] == 250
    assert len(list((place / "new").iterdir())) == 1


def test_h82_a_full_disk_for_real(store: tuple[Front, Path]) -> None:
    """The limit on file sizes stands for the disk: write() fails in the middle."""
    front, place = store
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        output = front.say(DATA, b"x" * 20_000, b"\r\n.\r\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_refused_and_clean(front, place, output)
    assert any("File too large" in line for line in front.log)


@pytest.mark.parametrize("plugins", [(), ("force-file",)], ids=["memory first", "file"])
def test_h82_a_spool_that_cannot_be_written(store: tuple[Front, Path], plugins: tuple[str, ...]) -> None:
    front, place = store
    front.service._plugins += Front(*plugins).service._plugins
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        output = front.say(DATA, *[b"x" * 60_000] * (MEMORY_LIMIT // 60_000 + 2), b"\r\n.\r\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert output.endswith(b"451 4.3.0 Internal error.\r\n")
    check_refused_and_clean(front, place, output)
    assert any("spool" in line for line in front.log)


def test_h82_no_place_for_the_spool(tmp_path: Path) -> None:
    front = Front("accept", "force-file", env={"TMPDIR": str(tmp_path / "missing")})
    output = front.say(DATA, b"RSET\r\n")
    assert codes(output)[4:] == [451, 250]
    assert b"451 4.3.0 Internal error.\r\n" in output
    assert any("TMPDIR" in line and "missing" in line for line in front.log)
    assert front.messages == []


def test_h82_the_spool_is_asked_for_when_memory_is_full_only(tmp_path: Path) -> None:
    front = Front("accept", backend="maildir", env={"TMPDIR": str(tmp_path / "missing"), "MAILDIR_PATH": str(tmp_path)})
    for name in ("tmp", "new", "cur"):
        (tmp_path / name).mkdir()
    assert codes(front.say(DATA, BODY))[-1] == 250
    output = front.say(DATA, *[b"x" * 60_000] * 10, b"\r\n.\r\n")
    assert output.endswith(b"451 4.3.0 Internal error.\r\n")


def test_h82_a_directory_that_is_not_there(store: tuple[Front, Path]) -> None:
    front, place = store
    for name in ("tmp", "new", "cur"):
        (place / name).rmdir()
    assert 451 in codes(front.say(DATA, BODY))
    assert any("No such file or directory" in line for line in front.log)


@pytest.fixture
def open_umask() -> Any:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_h90_files_are_private(store: tuple[Front, Path]) -> None:
    front, place = store
    front.say(DATA, BODY)
    (file,) = (place / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.usefixtures("open_umask")
def test_h90_in_compat_the_queue_is_left_to_the_umask(tmp_path: Path) -> None:
    for name in ("tmp", "new"):
        (tmp_path / name).mkdir()
    env = {"QUEUEDIR": str(tmp_path), "MAILFRONT_PROFILE": "compat"}
    Front("accept", backend="queuedir", env=env).say(DATA, BODY)
    (file,) = (tmp_path / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o666


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("unnamed", [True, False], ids=["O_TMPFILE", "tempfile"])
def test_h90_the_spool_has_no_name_and_is_private(
    tmp_path: Path, unnamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not unnamed:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # a file system that does not know it
    kept = Spool(str(tmp_path), in_file=True)
    kept.write(b"secret")
    assert kept._file is not None
    assert stat.S_IMODE(os.fstat(kept._file.fileno()).st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []
    kept.close()


@pytest.mark.usefixtures("open_umask")
def test_h90_what_the_demonstration_makes_is_private(tmp_path: Path) -> None:
    from mailfront_io.demo import Demo

    place = tmp_path / "data"
    Demo(str(place), {}, lambda line: None)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in place.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place, *place.rglob("*")) if path.is_dir()} == {0o700}
