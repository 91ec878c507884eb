"""What hostile mail, programs that die and a server that is killed do to deliveries.

(SIGKILL at random moments under load: tests/long/test_delivery_kill.py. Calls that fail, and power failures:
tests/peers/test_delivery_trace.py. The relay: test_relay.py.)
"""

import os
import signal
import smtplib
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailfront_io.auth.static import StaticStore
from mailfront_io.testing import CANCEL, EOF, STOP, Action, Advance, Outside, Program
from mailfront_proto.secret import Secret
from tests.front import ENVELOPE, Front, codes
from tests.serving import SECONDS, environment, serving

DATA = ENVELOPE + b"DATA\r\n"
BODY = b"Subject: x\r\n\r\nbody\r\n.\r\n"
NAMED = Path(__file__).parents[1] / "named_files"
QUEUE = {"QMAILHOME": "/", "QMAILQUEUE": "/bin/queue"}


@pytest.fixture
def box(tmp_path: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (tmp_path / "box" / name).mkdir(parents=True)
    return tmp_path / "box"


def front(backend: str, box: Path, *plugins: str, **env: str) -> Front:
    places = {"QUEUEDIR": str(box), "MAILDIR_PATH": str(box)}
    return Front("accept", *plugins, backend=backend, env={**places, **QUEUE, **env})


# -- envelopes and environments ------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["default", "compat"])
@pytest.mark.parametrize("text", [b"a\0Tx@evil.example", b"a@b\0", b"a\nTx@b", b'"a\\\0b"@c', b"\x01@b"])
def test_h52_the_qmail_envelope_cannot_be_extended(profile: str, text: bytes) -> None:
    said = b"EHLO x\r\nMAIL FROM:<%b>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<%b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" % (text, text)
    tested = Front("accept", backend="qmail", env={**QUEUE, "MAILFRONT_PROFILE": profile})
    played = tested.play([said, BODY, EOF], outside=Outside(programs={"/bin/queue": Program()}), all_read=False)
    for ran in played.programs:
        assert ran.received[1] == b"Fa@b\0Tc@d\0\0"


@pytest.mark.parametrize("text", ["$(reboot)", "`id`", "|sh", ";x", "-f", "%s", "*"])
def test_h57_a_program_gets_no_argument_from_outside(text: str) -> None:
    said = f'EHLO x\r\nMAIL FROM:<"{text}"@b>\r\nRCPT TO:<"{text}"@d>\r\nDATA\r\n'.encode()
    tested = Front("accept", backend="qmail", env=QUEUE)
    played = tested.play([said, BODY, EOF], outside=Outside(programs={"/bin/queue": Program()}))
    (ran,) = played.programs
    assert ran.spawn.arguments == ["/bin/queue"]
    assert ran.received[1] == f'F"{text}"@b\0T"{text}"@d\0\0'.encode()


@pytest.mark.parametrize("driver", ["asyncio", "fork"])
def test_h58_a_servers_programs_get_what_they_need_and_no_more(driver: str, tmp_path: Path) -> None:
    program = tmp_path / "queue"
    program.write_text(
        "#!/bin/sh\ncat >message\ncat <&1 >envelope\ntr '\\0' '\\n' </proc/$$/environ | sed 's/=.*//' >names\n"
        "for n in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$n ] || echo $n; done >descriptors\n"
    )
    program.chmod(0o755)
    settings = {
        "QMAILHOME": tmp_path, "QMAILQUEUE": program, "QQERRMSG_51": "x", "LD_BIND_NOW": "1", "CVM_LOOKUP_SECRET": "s",
        "DATABYTES": "1000000", "MINE": "m", "CHILD_ENVIRONMENT": "MINE",
    }  # fmt: skip
    words = ("--driver", driver, "smtp", "qmail", "counters", "accept")
    with serving(tmp_path, *words, settings=settings) as [address], smtplib.SMTP(*address, timeout=SECONDS) as smtp:
        smtp.sendmail("a@b", ["c@d"], b"x\r\n")
    facts = {
        f"TCP{name}"
        for name in ("LOCALIP", "LOCALPORT", "LOCALHOST", "REMOTEIP", "REMOTEPORT", "REMOTEHOST")
    }
    usual = {"PATH", "HOME", "LANG", "TMPDIR", "QMAILHOME", "QMAILQUEUE", "MINE", "PROTO"}
    names = set((tmp_path / "names").read_text().split())
    assert {"PATH", "MINE", "QMAILHOME", "TCPREMOTEIP"} <= names <= usual | facts
    assert (tmp_path / "descriptors").read_text() == ""


@pytest.mark.parametrize(
    "address",
    ["../../etc", "..@..", ".@.", "a/../../b@x", "/etc/passwd", ".hidden@x", "x@.", "x" * 300 + "@y", "@", "out@x"],
)
def test_h59_no_recipient_leaves_the_directory_of_maildirs(address: str, tmp_path: Path) -> None:
    root = tmp_path / "root" / "x"
    for name in ("tmp", "new", "cur"):
        (tmp_path / "out" / name).mkdir(parents=True)
    root.mkdir(parents=True)
    (root / "out").symlink_to(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    for pattern in ("%u", "%d/%n", "%n", "x/%n", "x%n"):
        env = {"MAILDIR_PATH": f"{tmp_path}/root/{pattern}", "MAILFRONT_PROFILE": "compat"}
        said = f"MAIL FROM:<a@b>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode()
        assert 250 not in codes(Front("accept", backend="maildir", env=env).say(said, BODY))[2:]
        assert sorted(tmp_path.rglob("*")) == before
    for name in {address, address.partition("@")[0]} - {""}:
        store = StaticStore({name: Secret(b"x")})
        env = {"MAILDIR_ROOT": f"{tmp_path}/root/x", "MAILDIR_CREATE": "", "MAILFRONT_PROFILE": "compat"}
        tested = Front("accept", backend="maildir", env=env, credentials=store)
        said = f"MAIL FROM:<a@b>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode()
        tested.say(said, BODY)
        assert list((tmp_path / "out" / "new").iterdir()) == []
        assert {path.name for path in tmp_path.iterdir()} == {"root", "out"}
        assert {path.name for path in (tmp_path / "root").iterdir()} == {"x"}


def test_h60_the_text_of_a_queue_program_adds_no_reply_line() -> None:
    env = {**QUEUE, "QQERRMSG_31": "no\r\n250 2.0.0 yes\x1b]0;x\x07"}
    tested = Front("accept", backend="qmail", env=env)
    program = Outside(programs={"/bin/queue": Program(code=31)})
    output = tested.play([DATA, BODY, EOF], outside=program).output
    assert codes(output)[-1] == 554 and b"\x1b" not in output
    assert output.split(b"\r\n")[-3].startswith(b"554-")


# -- programs and servers that die ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [-9, -11, -6, 1, 51, 111, 255])
def test_h66_a_queue_program_that_dies_has_not_taken_the_message(code: int) -> None:
    tested = Front("accept", backend="qmail", env=QUEUE)
    program = Outside(programs={"/bin/queue": Program(code=code)})
    assert codes(tested.play([DATA, BODY, EOF], outside=program).output)[-1] == 451


KILLED = """
import os, signal, sys
name, when = sys.argv[1], int(sys.argv[2])
function, box, calls = getattr(os, name), sys.argv[3], 0

def call(*arguments, **keywords):
    global calls
    concerned = name != "write" or box in os.readlink(f"/proc/self/fd/{arguments[0]}")
    calls += concerned
    if concerned and calls == when:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments, **keywords)

from mailfront_io import cli, service
from mailfront_io.frontends import smtp
from mailfront_io.drivers import oneshot
setattr(os, name, call)
sys.argv = ["mailfront", "smtp", sys.argv[4], "accept"]
sys.exit(cli.main())
"""


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
@pytest.mark.parametrize("backend", ["queuedir", "maildir"])
def test_h81_killed_before_each_step_of_a_delivery(backend: str, named: bool, box: Path) -> None:
    """Not acknowledged: it is there whole, or not at all; the next delivery takes away what was left."""
    env = environment(QUEUEDIR=box, MAILDIR_PATH=box, **({"PYTHONPATH": NAMED} if named else {}))
    stored = 0
    for name in ("open", "write", "fsync", "link", "unlink"):
        for when in range(1, 10):
            done = subprocess.run(
                [sys.executable, "-c", KILLED, name, str(when), str(box), backend],
                input=DATA + BODY + b"QUIT\r\n",
                env=env,
                capture_output=True,
                timeout=SECONDS,
            )
            found = [path.read_bytes() for path in (box / "new").iterdir()]
            assert all(content.endswith(b"Subject: x\n\nbody\n") for content in found) and len(found) <= 1
            if done.returncode == 0:  # there is no such call any more
                assert len(found) == 1 and codes(done.stdout)[-2:] == [250, 221]
            else:
                assert done.returncode == -signal.SIGKILL and b"250 2.6.0" not in done.stdout
                stored += len(found)
            for path in (box / "new").iterdir():
                path.unlink()
            if done.returncode == 0:
                break
        assert list((box / "tmp").iterdir()) == []
    assert stored >= 1  # between the link and the answer


@pytest.mark.parametrize("backend", ["queuedir", "maildir", "qmail"])
def test_h83_a_server_that_stops_finishes_the_message_in_hand(backend: str, box: Path) -> None:
    tested = front(backend, box)
    script: list[Action] = [DATA, b"Subject: x\r\n", STOP, b"\r\nbody\r\n.\r\n", EOF]
    played = tested.play(script, outside=Outside(programs={"/bin/queue": Program()}), all_read=False)
    assert 250 in codes(played.output)[4:]
    assert len(list((box / "new").iterdir())) + len(played.programs) == 1


@pytest.mark.parametrize("backend", ["queuedir", "maildir", "qmail"])
def test_h83_a_server_that_must_stop_now_leaves_no_half_message(backend: str, box: Path) -> None:
    for said in ([ENVELOPE], [DATA], [DATA, b"half"], [DATA, b"half", Advance(5)]):
        tested = front(backend, box)
        played = tested.play([*said, CANCEL], outside=Outside(), all_read=False, catch=True)
        assert 250 not in codes(played.output)[5:]
        assert [path for path in box.rglob("*") if path.is_file()] == [] and played.programs == []


@pytest.fixture
def open_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_h90_maildirs_that_are_made_are_private(tmp_path: Path) -> None:
    env = {"MAILDIR_PATH": f"{tmp_path}/%d/%n", "MAILDIR_CREATE": ""}
    assert codes(Front("accept", backend="maildir", env=env).say(DATA, BODY))[-1] == 250
    modes = {path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {mode for path, mode in modes.items() if (tmp_path / path).is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if (tmp_path / path).is_file()} == {0o600}
    assert sorted(os.listdir(tmp_path / "example.org" / "b")) == ["cur", "new", "tmp"]
