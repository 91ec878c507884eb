"""What a one-shot program imports: it is started for each connection, so it imports what it needs."""

import os
import subprocess
import sys

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
