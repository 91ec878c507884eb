"""Configuration files: what is wrong with them, what is shown of them, and the first ones that are written."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.auth.sqlite import UserDatabase
from mailfront_io.config.checks import dangers, in_words_of_the_file, load
from mailfront_io.config.command import main
from mailfront_io.config.keys import TABLES
from mailfront_io.config.lines import key_lines
from mailfront_io.config.reading import Config, WrongConfiguration, parse_config
from mailfront_io.config.templates import TEMPLATES, template
from tests.certificates import certificate

WRONG = sorted(Path(__file__).with_name("wrong_configurations").glob("*.toml"))
SMTP = '[[listener]]\nprotocol = "smtp"\nlisten = ["127.0.0.1:0"]\nbackend = "discard"\n'


@pytest.mark.parametrize("file", WRONG, ids=lambda file: file.stem)
def test_what_is_wrong_is_said(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside each file stands what ``mailfront config check`` says of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "users").write_text("me:secret\n")
    (tmp_path / "users").chmod(0o644)
    Path(file.name).write_bytes(file.read_bytes())
    code = main(["check", file.name])
    said = capsys.readouterr()
    assert said.err + said.out + f"exit code {code}\n" == file.with_suffix(".txt").read_text()


@pytest.mark.parametrize("purpose", sorted(TEMPLATES))
def test_the_first_file_for_each_purpose_is_good(purpose: str, tmp_path: Path) -> None:
    """Once what it names is there."""
    text = template(purpose, "mailfront.toml", "mx.example.org")
    for path in ("/etc/ssl/certs/mx.example.org.pem", "/etc/ssl/private/mx.example.org.key"):
        text = text.replace(path, str(tmp_path / "mail.pem"))
    certificate().private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "mail.pem"))
    (tmp_path / "mail.pem").chmod(0o600)
    for path in ("/var/lib/mailfront/users.sqlite", "mailfront-data/users.sqlite"):
        text = text.replace(path, str(tmp_path / "users.sqlite"))
    UserDatabase(str(tmp_path / "users.sqlite")).create()
    for path in ("/var/spool/mailfront", "/var/mail/maildirs"):
        text = text.replace(path, str(tmp_path))
    config = parse_config(text, "mailfront.toml", {})
    loaded, problems = load(config.listeners, print)
    assert problems == []
    assert len(loaded) == len(config.listeners) > 0
    assert [str(danger) for danger in dangers(config) if danger.key != "server.user"] == []


def test_init_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--for", "dev"]) == 0
    assert main(["init", "--for", "mx"]) == 78
    assert capsys.readouterr().err == "mailfront config: mailfront.toml: File exists: name another file\n"
    assert "discard" in Path("mailfront.toml").read_text()


def test_what_is_shown_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMEOUT", "77")
    main(["init", "--for", "dev"])
    capsys.readouterr()
    assert main(["show"]) == 0
    shown = capsys.readouterr().out
    assert 'accept_domains = ["localhost"]  # line' in shown
    assert "timeout = 77  # environment" in shown
    assert "# driver: \"asyncio\"" in shown
    first = parse_config(Path("mailfront.toml").read_text(), "a", {"TIMEOUT": "77"})
    again = parse_config(shown, "b", {})
    assert [listener.words for listener in again.listeners] == [listener.words for listener in first.listeners]
    assert [listener.environment for listener in again.listeners] == [
        listener.environment for listener in first.listeners
    ]


@pytest.mark.parametrize(("address", "warned"), [
    ("127.0.0.1:25", True), ("127.0.0.1:587", False), ("unix:/run/x", False),
])  # fmt: skip
def test_certificates_of_users_are_not_for_other_servers(address: str, warned: bool) -> None:
    text = SMTP.replace("127.0.0.1:0", address) + 'certificate = "c.pem"\nsettings.tls_client_ca = "ca.pem"\n'
    config = parse_config(text, "f", {})
    assert config.listeners[0].environment["TLS_CLIENT_CA"] == "ca.pem"
    assert warned == any(danger.key.endswith("settings.tls_client_ca") for danger in dangers(config))


def test_a_variable_overrides_its_key() -> None:
    text = SMTP + 'plugins = ["counters"]\n[listener.settings]\ndatabytes = 5\n'
    [listener] = parse_config(text, "f", {"DATABYTES": "6", "OTHER": "7"}).listeners
    assert listener.environment["DATABYTES"] == "6"
    assert listener.origins["DATABYTES"] == "environment"
    assert "OTHER" not in listener.environment


def test_a_listener_s_own_setting_stands_before_that_for_all() -> None:
    text = "[settings]\ntimeout = 5\n" + SMTP + "[listener.settings]\ntimeout = 6\n" + SMTP
    first, second = parse_config(text, "f", {}).listeners
    assert (first.environment["TIMEOUT"], second.environment["TIMEOUT"]) == ("6", "5")


def test_a_secret_may_be_a_credential_of_systemd() -> None:
    text = SMTP + 'certificate = "credential:mail.pem"\n'
    [listener] = parse_config(text, "f", {"CREDENTIALS_DIRECTORY": "/run/credentials/mail"}).listeners
    assert listener.environment["TLS_CERTFILE"] == "/run/credentials/mail/mail.pem"


def test_variables_become_keys_in_what_is_said() -> None:
    assert in_words_of_the_file("$TLS_CERTFILE, $QUEUEDIR: no") == "certificate, settings.queuedir: no"


def test_every_key_is_in_no_table_twice() -> None:
    for keys in TABLES.values():
        names = [key.name for key in keys]
        assert len(names) == len(set(names))
        assert all(not key.choices or key.default is None or key.default in key.choices for key in keys)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a = 1\n\n[b]\nc = 2\n", {("a",): 1, ("b",): 3, ("b", "c"): 4}),
        ('[[l]]\nx = [\n "]", # [\n]\ny = """\nz = 1\n"""\n[l.s]\nz = 2\n[[l]]\nx = 1\n[l.s]\nz = 3\n',
         {("l", 0): 1, ("l", 0, "x"): 2, ("l", 0, "y"): 5, ("l", 0, "s"): 8, ("l", 0, "s", "z"): 9,
          ("l", 1): 10, ("l", 1, "x"): 11, ("l", 1, "s"): 12, ("l", 1, "s", "z"): 13}),
        ('["a b".c]\n"d.e" = 1\nf.g = 2\n', {("a b", "c"): 1, ("a b", "c", "d.e"): 2, ("a b", "c", "f", "g"): 3}),
        ("a = 'x\\'\nb = '''\n[c]\n'''\n", {("a",): 1, ("b",): 2}),
    ],
)  # fmt: skip
def test_lines_of_keys(text: str, lines: dict[tuple[str | int, ...], int]) -> None:
    tomllib.loads(text)
    assert key_lines(text) == lines


values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08X}" for c in value) + '"'
    return str(value).replace("inf", "1.0")


@given(st.data())
def test_any_value_for_any_key_is_taken_or_refused_in_words(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(TABLES)))
    key = data.draw(st.sampled_from(TABLES[table])).name
    value = data.draw(values)
    header = {"store": "[store.x]", "listener": "[[listener]]"}.get(table, f"[{table}]")
    try:
        config = parse_config(f"{header}\n{key} = {as_toml(value)}\n", "f", {})
    except WrongConfiguration as error:
        assert error.problems
        for problem in error.problems:
            assert re.match(r"[a-z][\w ,.]*: \S", str(problem)), str(problem)
    else:
        assert isinstance(config, Config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"a = {3000 * '['}{3000 * ']'}\n{SMTP}", ": it cannot be read: too deep"),
        (f"a = {5000 * '9'}\n{SMTP}", ": it cannot be read: Exceeds the limit"),
        (SMTP.replace('"127.0.0.1:0"', ""), ":3: listener 1, listen: is empty"),
        ('[metrics]\nlisten = "\\r"\n' + SMTP, ":2: metrics.listen: '\\r': the port is a number up to 65535"),
        (f'[store."a]b"]\ncolour = 1\n{SMTP}', ":2: store.a]b.colour: there is no such key"),
        (f'{SMTP}"col\\"our" = 1\n', ':5: listener 1, col"our: there is no such key'),
    ],
)
def test_odd_texts_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(WrongConfiguration) as caught:
        parse_config(text, "", {})
    assert words in str(caught.value)
