"""``mailfront rules`` as a process of its own: output and exit codes."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.serving import MAILFRONT, SECONDS, environment

RULES = r"""# our own rules
:sender
d*@bad.example:*:5.7.1 Not from there
n*@big.example:*::50000000::SPOOL=yes
&*@and.example:*
kboth@*:*:2.1.0 Both
Kfinal@*:*:Two\nlines
p*@pass.example:*
:recipient
d*:[[gone]]:5.1.6 Gone
kann@*:*@lists.example::1000:.lists:HEADER_ADD=X-List: yes
z*:slow@*
"""


class Ran(NamedTuple):
    exit: int
    stdout: str
    stderr: str

    @property
    def conclusions(self) -> list[str]:
        """The lines that say what becomes of each address."""
        return [line.strip() for line in self.stdout.splitlines() if line.startswith("  => ")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "rules").write_text(RULES)
    (tmp_path / "gone").write_text("bob@here.example\n@old.example\n")
    return tmp_path


def rules(place: Path, *words: str) -> Ran:
    run = subprocess.run(
        [MAILFRONT, "rules", *words], capture_output=True, cwd=place, env=environment(), timeout=SECONDS, text=True
    )
    return Ran(run.returncode, run.stdout, run.stderr)


# -- check ---------------------------------------------------------------------------------------------------


def test_a_file_without_a_fault(place: Path) -> None:
    assert rules(place, "check", "rules") == (
        0,
        "rules: rules for senders: 6, for recipients: 3; errors: 0, warnings: 0\n",
        "",
    )


def test_every_fault_is_told_with_its_place_and_remedy(place: Path) -> None:
    (place / "bad").write_text(":q\nka:b:c:5x\n  Qa\nk[[none]]:x\nk[[none.cdb]]:*\nk\x1b[2J:*\n")
    ran = rules(place, "check", "bad")
    assert ran.exit == 1 and ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "bad:1:1: error: the selector ':q' is not known: write :sender or :recipient",
        "bad:2:8: error: databytes is '5x', which is no number: write decimal digits, or leave it empty",
        "bad:3:3: warning: the line begins with 'Q', which is no rule's code, and is ignored: begin it with one of "
        "k K d z p n &, with # for a comment, or with : for a selector",
        "bad:4:2: error: the list 'none': No such file or directory: make the file, or write the path of one that is "
        "there",
        "bad:5:2: warning: the list 'none.cdb': No such file or directory: a CDB file that is missing has no entries; "
        "make it, or take the rule out",
        "bad:6:2: warning: the pattern '\\x1b[2J' has a [ without a ], which stands for itself: close the set, or "
        "write [[] to say that a bracket is meant",
        "bad: rules for senders: 2, for recipients: 2; errors: 3, warnings: 3",
    ]


def test_warnings_are_no_errors(place: Path) -> None:
    (place / "odd").write_text("ka:[b\n")
    assert rules(place, "check", "odd").exit == 0


# -- test ----------------------------------------------------------------------------------------------------


def test_each_rule_that_is_tried_is_shown(place: Path) -> None:
    ran = rules(place, "test", "rules", "--sender", "both@and.example", "--recipient", "bob@here.example")
    assert ran.stdout == r"""Sender <both@and.example>
  line 3: d*@bad.example:*:5.7.1 Not from there
    the sender does not match *@bad.example
  line 4: n*@big.example:*::50000000::SPOOL=yes
    the sender does not match *@big.example
  line 5: &*@and.example:*
    it matches
  line 6: kboth@*:*:2.1.0 Both
    it matches
  => accepted: 250 2.1.0 Both (line 6)
Recipient <bob@here.example>
  line 10: d*:[[gone]]:5.1.6 Gone
    it matches
  => refused: 553 5.1.6 Gone (line 10)
"""
    assert ran.exit == 1 and ran.stderr == ""


NOT_DECIDED = "=> no rule decides: it is up to the plugins behind mailrules"


@pytest.mark.parametrize(
    ("arguments", "code", "conclusions"),
    [
        ("--sender x@bad.example", 1, ["=> refused: 553 5.7.1 Not from there (line 3)"]),
        ("--sender both@x", 0, [NOT_DECIDED]),
        ("--sender final@x", 0, ["=> accepted, and no further plugin is asked: 250 Two / lines (line 7)"]),
        ("--sender x@pass.example", 0, ["=> passed on: it is up to the plugins behind mailrules"]),
        ("", 0, [NOT_DECIDED]),
        ("--recipient slow@x", 1, [NOT_DECIDED, "=> deferred: 451 Deferred (line 12)"]),
        (
            "--sender ann@x --recipient x@lists.example",
            0,
            [NOT_DECIDED, "=> accepted: 250 with the text of the backend (line 11)"],
        ),
    ],
)
def test_conclusions(place: Path, arguments: str, code: int, conclusions: list[str]) -> None:
    ran = rules(place, "test", "rules", *arguments.split())
    assert (ran.exit, ran.conclusions) == (code, conclusions)


def test_effects_are_shown(place: Path) -> None:
    words = ["--sender", "ann@big.example", "--recipient", "a@lists.example", "--recipient", "b@lists.example"]
    ran = rules(place, "test", "rules", *words)
    assert "  it goes on as <a@lists.example.lists>\n" in ran.stdout
    assert ran.stdout.splitlines()[-3:] == [
        "Message: at most 1000 bytes (the plugin counters sees to that)",
        "Setting: SPOOL=yes",
        "Setting: HEADER_ADD=X-List: yes",
    ]
    ran = rules(place, "test", "rules", *words, "--env", "DATABYTES=10", "--env", "SPOOL=no")
    assert "Message: at most 10 bytes" in ran.stdout and "Setting: SPOOL=yes" in ran.stdout


def test_a_refused_sender_has_no_recipients(place: Path) -> None:
    ran = rules(place, "test", "rules", "--sender", "x@bad.example", "--recipient", "slow@x")
    assert "A sender who is refused has no recipients. If it were not refused:\nRecipient <slow@x>\n" in ran.stdout


def test_a_file_with_errors_is_not_tested(place: Path) -> None:
    (place / "bad").write_text("k*:*\n:q\n")
    ran = rules(place, "test", "bad", "--sender", "a@b")
    assert ran == (
        78,
        "bad:2:1: error: the selector ':q' is not known: write :sender or :recipient\n",
        "mailfront rules: bad cannot be used as it is: mend the errors above\n",
    )


# -- usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 64, "the following arguments are required: check|test: see mailfront rules --help"),
        (["check"], 64, "the following arguments are required: FILE: see mailfront rules --help"),
        (["test", "rules", "--env", "A"], 64, "--env A is no assignment: write --env NAME=VALUE"),
        (["test", "rules", "--env", "=A"], 64, "--env =A is no assignment: write --env NAME=VALUE"),
        (["check", "none"], 78, "none: No such file or directory: give a file that can be read"),
        (["test", "."], 78, ".: Is a directory: give a file that can be read"),
        (["check", ""], 78, ": No such file or directory: give a file that can be read"),
    ],
)
def test_usage(place: Path, words: list[str], code: int, sentence: str) -> None:
    assert rules(place, *words) == (code, "", f"mailfront rules: {sentence}\n")


def test_help_teaches(place: Path) -> None:
    ran = rules(place, "--help")
    assert ran.exit == 0
    for words in ("mailfront rules check /etc/mail/rules", "K accept and ask no further plugin", "Exit code of test"):
        assert words in ran.stdout
    for command in ("check", "test"):
        assert rules(place, command, "--help").exit == 0


def test_the_example_of_the_help_has_no_fault(place: Path) -> None:
    text = rules(place, "--help").stdout
    example = text[text.index("  # code") : text.index("The codes:")].replace("/etc/mail/", "")
    for name in ("partners", "domains"):
        (place / name).touch()
    (place / "example").write_text(example)
    assert "for senders: 2, for recipients: 2; errors: 0, warnings: 0" in rules(place, "check", "example").stdout
