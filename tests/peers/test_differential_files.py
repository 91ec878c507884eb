"""Plugins and files that are not there, or not where they seem to be: the original against ours in compat."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.golden.recorded import PATH
from tests.peers.one_shot import OneShot, Run, run_program
from tests.peers.original import CONNECTION, THEIRS, compare, needs_original, outcome_of, set_up

pytestmark = needs_original


# -- plugins that cannot be loaded ----------------------------------------------------------------------------

_CAUSE = re.compile(rb"(Error loading (?:plugin|backend|protocol) [^:]*: )[^\r\n,]*")


@pytest.mark.parametrize(
    "words",
    [
        *("smtp echo nope", "smtp echo accept:nope:accept", "smtp echo +nope", "smtp echo nope:-nope:accept"),
        *("smtp echo nope:-*:accept", "smtp echo one:+two:-one", "smtp echo +one two", "smtp echo accept:nope:-nope"),
        *("smtp echo -nope:accept", "smtp echo - accept", "smtp echo + accept", "smtp echo --nope:accept"),
        *("smtp nope accept", "smtp nope nope2", "nope nope nope", "qmtp echo nope", "qmqp nope accept"),
    ],
)
def test_what_cannot_be_loaded(one_shot: OneShot, tmp_path: Path, words: str) -> None:
    """The same name in the same place. The cause is the original's own: it names a file of it."""
    env = {"PATH": PATH, "MAILFRONT_PROFILE": "compat", **CONNECTION}
    theirs = run_program([str(THEIRS), *words.split()], env, tmp_path, b"NOOP\r\n")
    ours = one_shot.run(["mailfront", *words.split()], env, tmp_path, b"NOOP\r\n")
    assert without_cause(ours) == without_cause(theirs)


def without_cause(run: Run) -> tuple[bytes, bytes, int]:
    said = re.sub(rb"^\d+:", b"", run.stdout)  # a netstring's length
    return _CAUSE.sub(rb"\1CAUSE", said), _CAUSE.sub(rb"\1CAUSE", re.sub(rb"\[\d+\]", b"", run.stderr)), run.exit


# -- relative names, and files that may not be read ------------------------------------------------------------

_RELATIVE_FILES = {
    **{"qm/control/me": b"", "s": b'msg("here")', "qm/s": b'msg("at home")'},
    **{"p": b"=here\n/one*\n", "qm/p": b"=at home\n/one*\n"},
    **{"r": b":s\nk[[@l]]:*:yes\n", "l": b"b.example\n", "qm/r": b":s\nk[[@l]]:*:home\n", "qm/l": b"\n"},
}


@pytest.mark.parametrize("plugin", ["patterns", "lua", "mailrules"])
@pytest.mark.parametrize("words", ["echo {}", "echo qmail-validate {}", "echo {} qmail-validate", "qmail {}"])
def test_relative_names_of_files(one_shot: OneShot, words: str, plugin: str) -> None:
    """They start where the process is: qmail-validate, and the qmail backend with a message, go to `$QMAILHOME`."""
    env = {"QMAILHOME": "$DIR/qm", "QMAILQUEUE": "true", "PATTERNS": "p", "LUA_SCRIPT": "s", "MAILRULES": "r"}
    said = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d>\r\n"
    if plugin == "patterns":  # it refuses the message, so that nothing waits for a queue
        said += b"DATA\r\nto: x\r\n\r\none\r\n.\r\n"
    compare(one_shot, ["smtp", *words.format(plugin).split(), "accept"], env, said, _RELATIVE_FILES)


UNREADABLE = {
    "r": "echo mailrules accept",
    "l": "echo mailrules accept",
    "p": "echo patterns accept",
    "s": "echo lua accept",
    **{f"qm/control/{name}": "echo qmail-validate" for name in ("badmailfrom", "badrcptto", "rcpthosts")},
    **{"qm/control": "echo qmail-validate", "qm": "qmail qmail-validate accept", "q/tmp": "queuedir accept"},
    "q/new": "queuedir accept",
}
_POWERS = "-dac_override,-dac_read_search"
_WITHOUT_POWERS = ["setpriv", "--bounding-set", _POWERS, "--inh-caps", _POWERS]
"""Root then needs permissions like everybody else."""


@pytest.mark.parametrize("name", UNREADABLE)
def test_files_that_may_not_be_read(tmp_path: Path, name: str) -> None:
    env = {"QMAILHOME": "$DIR/qm", "PATTERNS": "$DIR/p", "LUA_SCRIPT": "$DIR/s", "MAILRULES": "$DIR/r"}
    files = {
        **{"r": b":s\nk[[$DIR/l]]:*:yes\n", "l": b"@b.example\n", "p": b"/one*\n", "s": b'msg("x")'},
        **{"qm/control/badmailfrom": b"@b.example\n", "qm/control/badrcptto": b"c@d\n", "qm/control/rcpthosts": b"d\n"},
    }
    said = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d>\r\nDATA\r\nto: x\r\n\r\none\r\n.\r\n"
    powers = _WITHOUT_POWERS if os.geteuid() == 0 else []
    seen = []
    for program in (THEIRS, Path(sys.executable).with_name("mailfront")):
        place = tmp_path / program.parent.name
        whole = set_up(place, env, files)
        (place / name).chmod(0)
        try:
            run = run_program([*powers, str(program), "smtp", *UNREADABLE[name].split()], whole, place, said)
        finally:
            (place / name).chmod(0o755)
        seen.append(outcome_of(run, place))
    assert seen[1] == seen[0]
