"""The distributions that ``make dist`` makes install into a clean environment, and run there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.serving import environment

pytestmark = pytest.mark.long

SESSION = b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nQUIT\r\n"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the source distribution of a copy of what git has."""
    source = tmp_path_factory.mktemp("source")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x"], cwd=source, input=archive, check=True)
    made: Path = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--group", f"{ROOT}/pyproject.toml:dist"], check=True
    )
    subprocess.run([sys.executable, "-m", "build", "--outdir", made, source], check=True, stdout=subprocess.DEVNULL)
    return made


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_and_runs(kind: str, distributions: Path, tmp_path: Path) -> None:
    [distribution] = distributions.glob(kind)
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    subprocess.run([tmp_path / "bin" / "pip", "install", "--quiet", distribution], check=True)
    mailfront = tmp_path / "bin" / "mailfront"
    output = subprocess.run(
        [mailfront, "smtp", "discard", "accept"], input=SESSION, env=environment(), capture_output=True, check=True
    ).stdout
    assert output.startswith(b"220 ") and output.endswith(b"250 2.1.5 Recipient accepted.\r\n221 2.0.0 Good bye.\r\n")
    version = subprocess.run([mailfront, "--version"], env=environment(), capture_output=True, check=True).stdout
    assert version.decode().strip() in f"mailfront {distribution.name.split('-')[1].removesuffix('.tar.gz')}"
    pages = {page.name for page in (tmp_path / "share" / "man" / "man1").iterdir()}
    assert pages == {page.name for page in (ROOT / "docs" / "man").iterdir()} and "mailfront-serve.1" in pages
    typed = list((tmp_path / "lib").rglob("mailfront_*/py.typed"))
    assert len(typed) == 2
