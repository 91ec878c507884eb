"""What a one-shot program imports: it is started for each connection, so it imports what it needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = (
    *("asyncio", "trio", "anyio", "uvloop", "ssl", "socket", "dns", "argparse", "logging", "email"),
    *("importlib.metadata", "dataclasses", "inspect", "threading", "subprocess", "tempfile", "hmac", "cryptography"),
    *("hashlib", "stringprep", "mailfront_proto.sasl.exchange", "mailfront_proto.sasl.mechanism"),
    "mailfront_io.tls",
)

PROGRAM = """
import sys
sys.argv = ["mailfront", "smtp", "echo", "counters", "check-fqdn", "add-received", "accept"]
from mailfront_io.cli import main
code = main()
sys.stderr.write("\\n".join(["MODULES", *sys.modules]))
sys.exit(code)
"""


def test_no_slow_module_is_imported() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=b"EHLO me\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
        capture_output=True,
        env=environment,
        check=True,
    )
    assert b"250 2.6.0 Received " in done.stdout
    modules = done.stderr.decode().partition("MODULES\n")[2].split("\n")
    assert "mailfront_io.cli" in modules
    assert not [name for name in SLOW if name in modules]


OTHERS = [
    ("mailfront_io.compat.imapfront_auth", ["imapfront-auth", "true"], b"a CAPABILITY\r\nb LOGOUT\r\n", b"b OK "),
    ("mailfront_io.compat.pop3front_auth", ["pop3front-auth", "cvm-pwfile", "true"], b"CAPA\r\nQUIT\r\n", b".\r\n+OK "),
    ("mailfront_io.pop3front_maildir", ["pop3front-maildir", "."], b"STAT\r\nQUIT\r\n", b"+OK 0 0\r\n+OK "),
    ("mailfront_io.cli", ["mailfront", "qmtp", "echo", "accept"], b"2:\nx,3:a@b,8:5:c@d.e,,", b"K"),
    ("mailfront_io.cli", ["mailfront", "qmqp", "echo", "accept"], b"20:1:x,3:a@b,7:c@d.net,,", b"K"),
]


@pytest.mark.parametrize(("module", "argv", "said", "answer"), OTHERS, ids=[" ".join(case[1]) for case in OTHERS])
def test_nor_by_the_other_programs(tmp_path: Path, module: str, argv: list[str], said: bytes, answer: bytes) -> None:
    for part in ("cur", "new"):
        (tmp_path / part).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTHON"))}
    program = PROGRAM.replace("mailfront_io.cli", module)
    program = program.replace(program[program.index("sys.argv =") : program.index("from")], f"sys.argv = {argv}\n")
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=said,
        capture_output=True,
        env={**kept, "CVM_SASL_PLAIN": "cvm-pwfile", "AUTH_REQUIRES_TLS": "0"},
        cwd=tmp_path,
        check=True,
    )
    assert answer in done.stdout, done.stderr
    modules = done.stderr.decode().partition("MODULES\n")[2].split("\n")
    assert module in modules
    assert [name for name in (*SLOW, "mailfront_proto.smtp.server") if name in modules] == []
