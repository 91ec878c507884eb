"""``mailfront plugins``: the list, one plugin, a new one that works."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mailfront_io import cli, registry
from mailfront_io.plugins_command import first_sentence, main
from mailfront_io.registry import load_plugin, plugin_names


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_the_list_has_every_plugin_and_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys).splitlines()
    names = plugin_names()
    assert [line.split()[0] for line in lines[: len(names)]] == names
    assert all(len(line.split()) > 3 and line.endswith(".") for line in lines[: len(names)])


def test_the_command_is_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mailfront", "plugins", "counters"])
    assert cli.main() == 0
    assert capsys.readouterr().out.startswith("counters\n\nBounds the size of a message")


@pytest.mark.parametrize("name", plugin_names())
def test_each_plugin_tells_its_hooks_and_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, name)
    kind = load_plugin(name)
    assert text.startswith(f"{name}\n\n{first_sentence(kind).split()[0]} ")
    for setting in kind.settings:
        assert f"  ${setting.variable} ({setting.kind.value}" in text
    assert "Hooks: " in text and f"{name},deadline=SECONDS" in text
    assert max(map(len, text.splitlines())) <= 120


def test_what_a_plugin_needs_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "$AUTH_STORE (text, must be set; default: unset)" in printed(capsys, "validate")
    assert "Keeps the whole message until its end." in printed(capsys, "force-file")
    assert "Only for programs that tcpserver" in printed(capsys, "starttls-ucspi")


def test_a_class_by_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "mailfront_io.plugins.accept:Accept").startswith("accept\n")


def test_plugins_of_other_packages_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        EntryPoint("theirs", "mailfront_io.plugins.accept:Accept", registry.PLUGIN_GROUP),
        EntryPoint("broken", "no.such.module:Class", registry.PLUGIN_GROUP),
        EntryPoint("accept", "not.used:Ever", registry.PLUGIN_GROUP),
    ]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    lines = printed(capsys).splitlines()
    at = lines.index("Of other packages:")
    assert lines[at + 1] == "broken             cannot be loaded: No module named 'no'"
    assert lines[at + 2] == "theirs             Accepts every sender and recipient."
    assert lines[at + 3] == ""
    assert load_plugin("theirs") is load_plugin("accept")


def pytest_run(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=90)


def test_a_new_plugin_works_and_so_does_its_test(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "new", "my-check")
    assert "Written: my_check.py, test_my_check.py" in text
    assert "mailfront serve smtp discard my_check:MyCheck accept" in text
    run = pytest_run(place, "test_my_check.py")
    assert run.returncode == 0, run.stdout
    assert "2 passed" in run.stdout
    # A test that cannot fail proves nothing.
    plugin = place / "my_check.py"
    plugin.write_text(plugin.read_text().replace("return Response(550", "return None and Response(550"))
    assert pytest_run(place, "test_my_check.py").returncode == 1


@pytest.mark.parametrize("tool", [["check", "--select", "E,F,B,UP,RUF"], ["format", "--check"]], ids=["lint", "form"])
def test_a_new_plugin_is_tidy(place: Path, tool: list[str]) -> None:
    assert main(["new", "tidy"]) == 0
    command = [sys.executable, "-m", "ruff", *tool, "--isolated", "--line-length", "120", "."]
    run = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=90)
    assert run.returncode == 0, run.stdout


def test_nothing_is_overwritten(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "test_mine.py").write_text("mine")
    assert main(["new", "mine"]) == 1
    assert capsys.readouterr().err == (
        "mailfront plugins: test_mine.py is there already: choose another name, or take it away\n"
    )
    assert not (place / "mine.py").exists() and (place / "test_mine.py").read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    [*("../x", "/x", "", "X", "1x", "a b", "a--b", "-", "a" * 41, "os", "new", "é", "a.b", "x\n"), "class", "path"],
)
def test_names_that_are_none(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--", name]) == 64
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (
            ["nosuch"],
            1,
            "Error loading plugin nosuch: there is no plugin of that name: mailfront plugins lists the names",
        ),
        (
            ["nosuch:No"],
            1,
            "Error loading plugin nosuch:No: No module named 'nosuch': see that it is installed, or that $PYTHONPATH "
            "names its directory",
        ),
        (["os:path"], 1, "Error loading plugin os:path: os:path is no mailfront_io.plugin.Plugin"),
        (["new"], 64, "write mailfront plugins new NAME"),
        (["a", "b"], 64, "write mailfront plugins NAME, or mailfront plugins new NAME"),
        (["a", "b", "c"], 64, "unrecognized arguments: c: see mailfront plugins --help"),
        (["--x"], 64, "unrecognized arguments: --x: see mailfront plugins --help"),
    ],
)
def test_errors_are_one_sentence(words: list[str], code: int, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    assert capsys.readouterr().err == f"mailfront plugins: {error}\n"


def test_a_directory_that_cannot_be_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine.py").symlink_to(place / "gone" / "mine.py")
    assert main(["new", "mine"]) == 1
    assert capsys.readouterr().err.startswith("mailfront plugins: mine.py: ")
