"""The plugin mailrules through the front end, and the files that it keeps."""

import builtins
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cdblib import Writer

from mailfront_io import control_files
from mailfront_io.control_files import Cache, DamagedFile, Sources, open_cdb, read_list
from mailfront_io.rules.files import RULES, RuleFile
from tests.front import Front, codes

HELO = b"EHLO x\r\n"


def cdb(*keys: bytes) -> bytes:
    file = io.BytesIO()
    writer = Writer(file)
    for key in keys:
        writer.put(key, b"")
    writer.finalize()
    return file.getvalue()


class Rules:
    """A front end with a file of rules; in the compat profile, where no text gets a code in front, unless said."""

    def __init__(self, directory: Path, rules: str, *plugins: str, **env: str) -> None:
        self.file = directory / "rules"
        self.file.write_text(rules.replace("$DIR", str(directory)))
        environment = {"MAILFRONT_PROFILE": "compat", "MAILRULES": str(self.file), **env}
        self.front = Front(*(plugins or ("mailrules", "accept")), backend="echo", env=environment)

    def say(self, *lines: str) -> list[str]:
        """The replies behind that to EHLO."""
        output = self.front.say(HELO + "".join(f"{line}\r\n" for line in lines).encode())
        return [line.decode() for line in output.split(b"\r\n") if line[3:4] == b" "][2:]


# -- responses and effects -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "reply"),
    [
        ("k*:*:2.1.0 Welcome", "250 2.1.0 Welcome"), ("k*:*", "250 Sender='a@b'."),
        ("d*:*:5.7.1 No", "553 5.7.1 No"), ("d*:*", "553 Rejected"),
        ("z*:*:4.7.1 Later", "451 4.7.1 Later"), ("z*:*", "451 Deferred"), ("p*:*:x", "250 Sender='a@b'."),
        ("n*:*:x", "250 Sender='a@b'."), ("&*:*:x", "250 Sender='a@b'."),
        ("x*:*", "250 Sender='a@b'."),
        (r"d*:*:5.7.1 a\001\033[2Jb", "553 5.7.1 a??[2Jb"),
    ],
)  # fmt: skip
def test_responses(tmp_path: Path, rule: str, reply: str) -> None:
    assert Rules(tmp_path, f":s\n{rule}\n").say("MAIL FROM:<a@b>") == [reply]


def test_a_final_acceptance_asks_no_further_plugin(tmp_path: Path) -> None:
    rules = Rules(tmp_path, ":s\nKa@*:*:2.1.0 In\nk*:*:2.1.0 Perhaps\n", "mailrules", "reject", REJECT="-no")
    assert rules.say("MAIL FROM:<a@b>", "RSET", "MAIL FROM:<b@b>") == ["250 2.1.0 In", "250 2.3.0 OK", "553 no"]


def test_without_rules_nothing_is_said() -> None:
    front = Front("mailrules", "accept")
    assert codes(front.say(HELO + b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nRSET\r\n"))[2:] == [250, 250, 250]


def test_recipient_rules_see_the_sender_as_its_rules_did(tmp_path: Path) -> None:
    rules = ":r\nka@host.example:*:2.1.5 qualified\nka:*:2.1.5 as it came\n"
    said = ("MAIL FROM:<a>", "RCPT TO:<b@c.example>")
    env = {"DEFAULTHOST": "host.example"}
    before = Rules(tmp_path, rules, "mailrules", "check-fqdn", "accept", **env)
    assert before.say(*said)[-1] == "250 2.1.5 as it came"
    behind = Rules(tmp_path, rules, "check-fqdn", "mailrules", "accept", **env)
    assert behind.say(*said)[-1] == "250 2.1.5 qualified"


def test_every_rule_that_applies_appends_to_the_recipient(tmp_path: Path) -> None:
    rules = Rules(tmp_path, ":r\nn*:a@*:::.one\n&*:a@*:::.two\nk*:*:::.three\nk*:*:::.four\n")
    assert rules.say("MAIL FROM:<s@b>", "RCPT TO:<a@b>") == [
        "250 Sender='s@b'.",
        "250 Recipient='a@b.one.two.three'.",
    ]


def test_settings_last_until_reset(tmp_path: Path) -> None:
    rules = Rules(tmp_path, ":s\nna@*:*::::REJECT=-no,REJECT=-first wins\n", "mailrules", "reject", "accept")
    assert rules.say("MAIL FROM:<a@b>", "MAIL FROM:<b@b>") == ["553 no", "250 Sender='b@b'."]


# rule for a sender a@*, settings, order of the plugins, SIZE= that passes and one that does not
LIMITS = [
    ("na@*:*::50", {}, "mailrules counters", 50, 51),
    ("na@*:*::50", {"DATABYTES": "30"}, "mailrules counters", 30, 31),
    ("na@*:*::50\nna@*:*::70", {}, "mailrules counters", 50, 51),
    ("na@*:*::0", {"DATABYTES": "30"}, "mailrules counters", 30, 31),
    ("na@*:*::::DATABYTES=50", {"DATABYTES": "70"}, "mailrules counters", 50, 51),
    ("na@*:*::60::DATABYTES=50", {}, "mailrules counters", 50, 51),
    ("na@*:*::50", {"DATABYTES": "70"}, "counters mailrules", 70, 71),
]


@pytest.mark.parametrize(("rule", "env", "plugins", "passes", "over"), LIMITS)
def test_databytes(
    tmp_path: Path, rule: str, env: Mapping[str, str], plugins: str, passes: int, over: int
) -> None:
    rules = Rules(tmp_path, f":s\n{rule}\n", *plugins.split(), "accept", **env)
    for size, code in ((passes, "250"), (over, "552")):
        assert rules.say(f"MAIL FROM:<a@b> SIZE={size}")[0][:3] == code
    assert rules.say("MAIL FROM:<b@b> SIZE=25")[0][:3] == "250"


def test_a_limit_of_one_message_does_not_bind_the_next(tmp_path: Path) -> None:
    rules = Rules(tmp_path, ":r\nn*:a@*::5\n", "counters", "mailrules", "accept", DATABYTES="100")
    message = ["DATA", "0123456789", "."]
    said = rules.say("MAIL FROM:<s@b>", "RCPT TO:<a@b>", *message, "MAIL FROM:<s@b>", "RCPT TO:<c@b>", *message)
    assert [reply[:3] for reply in said] == ["250", "250", "354", "552", "250", "250", "354", "250"]


def test_size_is_told_behind_a_reset_of_the_rules(tmp_path: Path) -> None:
    env = {"DATABYTES": "100"}
    for profile, size in (("default", b"SIZE 100"), ("compat", b"SIZE 0")):
        front = Rules(tmp_path, ":s\nk*:*\n", "counters", "mailrules", "accept", MAILFRONT_PROFILE=profile, **env).front
        assert size in front.say(HELO)


def test_messages_of_a_session_have_the_smallest_limit(tmp_path: Path) -> None:
    rules = Rules(tmp_path, ":s\nna@*:*::::MAXMSGS=1\n", "mailrules", "counters", "accept", MAXMSGS="9")
    message = ["RCPT TO:<c@b>", "DATA", "."]
    said = rules.say("MAIL FROM:<a@b>", *message, "MAIL FROM:<b@b>")
    assert said[-1] == "550 5.5.0 Too many messages"


# -- files that cannot be used -----------------------------------------------------------------------------------

FAULTS = [
    ("k*:*\n:x\n", "421 4.3.0 Syntax error in $MAILRULES", ["rules:2:1: the selector ':x' is not known"]),
    (
        "ka:*::x\nka:*:::\n:q\n",
        "421 4.3.0 Syntax error in $MAILRULES",
        ["rules:1:7: databytes is 'x'", "rules:3:1: the selector ':q'"],
    ),
    (
        "k[[$DIR/none]]:*\n:x\n",
        "421 4.3.0 Error opening file referenced from $MAILRULES",
        ["rules:1:2: the list '$DIR/none': No such file or directory", "rules:2:1: the selector"],
    ),
    (":x\nk[[$DIR/none]]:*\n", "421 4.3.0 Syntax error in $MAILRULES", ["rules:1:1", "rules:2:2"]),
    ("k[[$DIR]]:*\n", "421 4.3.0 Error opening file referenced from $MAILRULES", ["rules:1:2: the list '$DIR': Is a"]),
    ("k*:[[a\\000b]]\n", "421 4.3.0 Error opening file referenced from $MAILRULES", ["rules:1:4: the list 'a\\x00b':"]),
    (
        "k[[$DIR/rules.cdb]]:*\n",
        "421 4.3.0 Error opening file referenced from $MAILRULES",
        ["rules:1:2: the list '$DIR/rules.cdb': $DIR/rules.cdb is no CDB file"],
    ),
]


@pytest.mark.parametrize(("text", "reply", "log"), FAULTS)
def test_faults_are_told_with_their_places(tmp_path: Path, text: str, reply: str, log: list[str]) -> None:
    (tmp_path / "rules.cdb").write_bytes(b"no CDB file")
    rules = Rules(tmp_path, text, MAILFRONT_PROFILE="default")
    assert rules.front.say(HELO).decode() == f"{reply}\r\n"
    told = [line for line in rules.front.log if line.startswith("mailrules: ")]
    assert len(told) == len(log)
    for line, part in zip(told, log, strict=True):
        assert line.startswith(f"mailrules: {tmp_path}/{part.replace('$DIR', str(tmp_path))}")
    compat = Front("mailrules", env={"MAILRULES": str(rules.file), "MAILFRONT_PROFILE": "compat"})
    assert compat.say(HELO).decode() == f"{reply}\r\n"
    assert compat.log[0] == reply  # and nothing in front of it, as in the original


def test_the_log_is_not_flooded_with_errors(tmp_path: Path) -> None:
    rules = Rules(tmp_path, ":x\n" * 100, MAILFRONT_PROFILE="default")
    rules.front.say(HELO)
    told = [line for line in rules.front.log if line.startswith("mailrules: ")]
    assert len(told) == 6
    assert told[-1] == f"mailrules: 95 more errors: run mailfront rules check {rules.file}"


@pytest.mark.parametrize("name", ["none", "", ".", "a\0b"])
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    front = Front("mailrules", "accept", env={"MAILRULES": name})
    assert front.say(HELO) == b"421 4.3.0 Could not open $MAILRULES file\r\n"
    assert front.log[0].startswith(f"mailrules: {name}: ")


def test_a_missing_cdb_file_has_no_entries(tmp_path: Path) -> None:
    rules = Rules(tmp_path, ":s\nd[[$DIR/none.cdb]]:*\nd[[@$DIR/none.cdb]]:*\nd![[$DIR/none.cdb]]:*:5.7.1 not in it\n")
    assert rules.say("MAIL FROM:<a@b>") == ["553 5.7.1 not in it"]


def test_without_the_package_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "l.cdb").write_bytes(cdb(b"a@b"))
    rules = Rules(tmp_path, ":s\nd[[$DIR/l.cdb]]:*\n")
    real_import = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("cdblib"):
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    assert rules.front.say(HELO) == b"421 4.3.0 Error opening file referenced from $MAILRULES\r\n"
    sentence = f"mailrules: {tmp_path}/l.cdb needs the package pure-cdb: run pip install 'mailfront[cdb]'"
    assert rules.front.log[0] == sentence


# -- files that change --------------------------------------------------------------------------------------------


def test_files_are_read_once_until_one_of_them_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(tmp_path, ":s\nd[[$DIR/list]]:*:5.7.1 listed\nd[[$DIR/l.cdb]]:*:5.7.1 in cdb\n")
    (tmp_path / "list").write_text("a@b\n")
    monkeypatch.setattr(control_files, "SETTLED_SECONDS", -60.0)  # as if all had been written a while ago
    reads = []
    load = RULES.load

    def counted(path: str) -> RuleFile:
        reads.append(path)
        return load(path)

    monkeypatch.setattr(RULES, "load", counted)

    def replies() -> list[str]:
        return [rules.say(f"MAIL FROM:<{address}>")[0] for address in ("a@b", "c@b")]

    assert replies() == ["553 5.7.1 listed", "250 Sender='c@b'."] and len(reads) == 1
    assert replies() == ["553 5.7.1 listed", "250 Sender='c@b'."] and len(reads) == 1
    (tmp_path / "list").write_text("c@b\n\n")
    assert replies() == ["250 Sender='a@b'.", "553 5.7.1 listed"] and len(reads) == 2
    (tmp_path / "l.cdb").write_bytes(cdb(b"a@b"))
    assert replies() == ["553 5.7.1 in cdb", "553 5.7.1 listed"] and len(reads) == 3
    (tmp_path / "new.cdb").write_bytes(cdb(b"c@b"))
    (tmp_path / "new.cdb").rename(tmp_path / "l.cdb")
    assert replies() == ["250 Sender='a@b'.", "553 5.7.1 listed"] and len(reads) == 4
    rules.file.write_text(":s\nd*:*:5.7.1 all\n")
    assert replies() == ["553 5.7.1 all"] * 2 and len(reads) == 5


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one tick of the clock neither its time nor its size need differ."""
    monkeypatch.setattr(control_files, "_signature_of", lambda status: ())
    rules = Rules(tmp_path, ":s\nk*:*:2.1.0 one\n")
    assert rules.say("MAIL FROM:<a@b>") == ["250 2.1.0 one"]
    rules.file.write_text(":s\nk*:*:2.1.0 two\n")
    assert rules.say("MAIL FROM:<a@b>") == ["250 2.1.0 two"]


def test_what_cannot_be_made_is_not_kept(tmp_path: Path) -> None:
    cache: Cache[bytes] = Cache(lambda path, sources: sources.read(path))
    path = str(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        cache.load(path)
    assert cache.current(path) is None
    (tmp_path / "file").write_bytes(b"x")
    assert cache.load(path) == b"x"


# -- lists ---------------------------------------------------------------------------------------------------------


def test_text_lists(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b" A@B \r\n\n# c\n\t#d\n@X\nlast")
    assert read_list(str(tmp_path / "list"), Sources()) == {b"a@b", b"@x", b"last"}


def test_a_pipe_without_a_writer_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_list(str(tmp_path / "pipe"), Sources()) == frozenset()


def test_cdb_files(tmp_path: Path) -> None:
    path = tmp_path / "l.cdb"
    path.write_bytes(cdb(*(b"%d@x" % n for n in range(1000))))
    keys = open_cdb(str(path), Sources())
    assert [n for n in range(1100) if b"%d@x" % n in keys] == list(range(1000))
    assert b"" not in keys


def test_a_cdb_file_that_is_cut_short_does_not_kill_us(tmp_path: Path) -> None:
    path = tmp_path / "l.cdb"
    path.write_bytes(cdb(b"a", b"b", b"c"))
    keys = open_cdb(str(path), Sources())
    os.truncate(path, 100)
    with pytest.raises(DamagedFile, match="is a damaged CDB file"):
        assert b"a" in keys


@pytest.mark.parametrize("length", [0, 1, 2047, 2048, 2060])
def test_what_is_no_cdb_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "l.cdb"
    path.write_bytes(cdb(b"a", b"b")[:length])
    with pytest.raises(DamagedFile, match="is no CDB file"):
        open_cdb(str(path), Sources())
    path.write_bytes(b"text\n" * 600)
    with pytest.raises(DamagedFile, match="is no CDB file"):
        open_cdb(str(path), Sources())
