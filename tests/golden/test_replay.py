"""The recorded sessions of the original, replayed against our programs in the compat profile.

Bytes out, exit code, log lines and the files afterwards must be equal. Where they may not be, `DIFFERENCES`
names the session, the fields that differ, and the fault of the original that no profile of ours copies.
"""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.golden.recorded import PATH, Session, load, run

# Sessions are chosen by the longest of these prefixes that their names begin with.
SELECTED = (
    "smtp-",
    "plugin-list-",
    "plugin-missing-args",
    "reject-",
    "relayclient-",
    "require-auth",
    "check-fqdn-",
    "counters-",
    "add-received-",
    "debug",
    "qmail-",
    "queuedir",
    "rules-",
    "patterns-",
    "qmail-validate",
    "pop3-",
    "qmtp-",
    "qmqp-",
    "imap-",
    "auth-",
    "cvm-validate",
    "lua",
)
NOT_YET: dict[str, str] = {
}

# name -> (the fields that differ, the fault of the original that is not copied)
DIFFERENCES: dict[str, tuple[frozenset[str], str]] = {
    "pop3-auth-sasl": (frozenset(("stderr",)), "the initial response of AUTH, which holds the password, is logged"),
}

SESSIONS = load()


def prefix_of(name: str) -> str | None:
    """The longest prefix, selected or not yet, with which the name of a session begins."""
    matching = [prefix for prefix in (*SELECTED, *NOT_YET) if name.startswith(prefix)]
    return max(matching, key=len, default=None)


def is_selected(session: Session) -> bool:
    return prefix_of(session.name) in SELECTED


def test_every_session_is_selected_or_waits_for_a_named_step() -> None:
    assert [session.name for session in SESSIONS if prefix_of(session.name) is None] == []
    assert not set(SELECTED) & set(NOT_YET)


def test_no_prefix_and_no_difference_is_left_over() -> None:
    used = {prefix_of(session.name) for session in SESSIONS}
    assert {*SELECTED, *NOT_YET} - used == set()
    assert set(DIFFERENCES) <= {session.name for session in SESSIONS if is_selected(session)}


def test_names_are_unique_and_nothing_was_lost() -> None:
    assert len({session.name for session in SESSIONS}) == len(SESSIONS) == 170


def takes_the_recorded_ones(session: Session) -> bool:
    """Whether limits on a maildir hit the same messages: which ones are first is up to the file system."""
    for part, limit in (("cur", 2), ("new", 1)):
        with TemporaryDirectory() as place:
            for name in session.files:
                if name.startswith(f"md/{part}/") and name[-1] != "/":
                    Path(place, name.rpartition("/")[2]).touch()
            shown = [name.partition(":")[0] for name in os.listdir(place) if name[0] != "."]
        if not all(b" " + name.encode() + b"\r\n" in session.outcome.stdout for name in shown[:limit]):
            return False
    return True


@pytest.mark.parametrize(
    "session", [pytest.param(session, id=session.name) for session in SESSIONS if is_selected(session)]
)
def test_replay(session: Session) -> None:
    if "cvm-pwfile" in (*session.argv, *session.env.values()) and not shutil.which("cvm-pwfile", path=PATH):
        pytest.skip("cvm-pwfile is not installed (make peers)")
    if session.name == "pop3-limits-new" and not takes_the_recorded_ones(session):
        pytest.skip("This file system gives a directory's files in another order than the recording's did.")
    program = Path(sys.executable).with_name(session.argv[0])
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # the programs behind a login run as its user
        ours = run(session, [str(program)], Path(name), {"MAILFRONT_PROFILE": "compat"})
    fields, _fault = DIFFERENCES.get(session.name, (frozenset(), ""))
    if fields:
        assert ours.differing(session.outcome) == fields
    else:
        assert ours == session.outcome
