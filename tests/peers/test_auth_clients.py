"""AUTH over SMTP with clients that are not ours, against every driver: SCRAM by scramp (in clear, in TLS and bound to
it) and msmtp, CRAM-MD5 and PLAIN by smtplib, swaks and curl. The store is the SQLite file, or a password file."""

import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import scramp

from mailfront_io.auth.sqlite import UserDatabase
from mailfront_io.tls import server_context, server_end_point
from mailfront_proto.secret import Secret
from tests.certificates import client_context, write_pem
from tests.peers.programs import program
from tests.serving import DRIVERS, SECONDS, serving

pytestmark = pytest.mark.peer

LINE = ("smtp", "discard", "authenticate", "require-auth", "accept")


@pytest.fixture(params=DRIVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A server with STARTTLS, and ann, whose password is pencil."""
    database = UserDatabase(str(tmp_path / "users.sqlite"))
    database.create()
    database.add("ann", Secret(b"pencil"))
    settings = {
        "AUTH_STORE": f"sqlite:{database.path}", "TLS_CERTFILE": write_pem(tmp_path), "AUTH_FAILURE_DELAY": 0,
    }  # fmt: skip
    with serving(tmp_path, "--driver", request.param, *LINE, settings=settings) as [address]:
        yield address


class Scram:
    """scramp as smtplib's ``authobject``."""

    def __init__(self, mechanism: str, password: str, binding: tuple[str, bytes] | None = None) -> None:
        self._client = scramp.ScramClient([mechanism], "ann", password, channel_binding=binding)
        self._step = 0

    def __call__(self, challenge: bytes | None = None) -> str:
        self._step += 1
        if self._step == 1:
            return str(self._client.get_client_first())
        assert challenge is not None
        text = challenge.decode()
        if self._step == 2:
            self._client.set_server_first(text)
            return str(self._client.get_client_final())
        self._client.set_server_final(text)
        return ""


def test_scram_in_clear_in_tls_and_bound_to_it(server: tuple[str, int], tmp_path: Path) -> None:
    binding = server_end_point(server_context({"TLS_CERTFILE": str(tmp_path / "server.pem")}.get))
    with smtplib.SMTP(*server, timeout=SECONDS) as smtp:
        smtp.ehlo()
        assert smtp.esmtp_features["auth"].split() == ["SCRAM-SHA-256"]  # in clear nothing else
        with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
            smtp.auth("SCRAM-SHA-256", Scram("SCRAM-SHA-256", "pen"), initial_response_ok=True)
        assert smtp.auth("SCRAM-SHA-256", Scram("SCRAM-SHA-256", "pencil"), initial_response_ok=True)[0] == 235
        assert smtp.mail("a@b.example")[0] == 250
    for plus, bound, code in (
        ("-PLUS", ("tls-server-end-point", binding), 235),
        ("-PLUS", ("tls-server-end-point", bytes(32)), 535),
        ("", None, 235),
    ):
        context = client_context()
        context.check_hostname = False
        with smtplib.SMTP(*server, timeout=SECONDS) as smtp:
            smtp.starttls(context=context)
            smtp.ehlo()
            offered = smtp.esmtp_features["auth"].split()
            assert offered == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "LOGIN", "PLAIN"]
            name = f"SCRAM-SHA-256{plus}"
            try:
                said = smtp.auth(name, Scram(name, "pencil", bound), initial_response_ok=True)[0]
            except smtplib.SMTPAuthenticationError as error:
                said = error.smtp_code
            assert said == code


def test_curl_and_msmtp(server: tuple[str, int], tmp_path: Path) -> None:
    host, port = server
    (tmp_path / "message").write_text("Subject: x\r\n\r\nhello\r\n")
    for mechanism in ("PLAIN", "LOGIN"):
        for password, code in (("pencil", 0), ("pen", 67)):
            done = subprocess.run(
                [program("curl"), "-sS", "--insecure", "--ssl-reqd", f"smtp://{host}:{port}",
                 "--login-options", f"AUTH={mechanism}", "--user", f"ann:{password}", "--mail-from", "a@b.example",
                 "--mail-rcpt", "c@d.example", "--upload-file", str(tmp_path / "message")],
                capture_output=True, timeout=SECONDS,
            )  # fmt: skip
            assert done.returncode == code, done.stderr
    for tls in ("off", "on"):
        for password, code in (("pencil", 0), ("pen", 77)):
            done = subprocess.run(
                [program("msmtp"), "--file=/dev/null", f"--host={host}", f"--port={port}", "--auth=scram-sha-256",
                 "--user=ann", f"--passwordeval=echo {password}", f"--tls={tls}", "--tls-certcheck=off",
                 "--from=a@b.example", "c@d.example"],
                input=b"Subject: x\n\nhello\n", capture_output=True, timeout=SECONDS, env={"HOME": str(tmp_path)},
            )  # fmt: skip
            assert done.returncode == code, (tls, password, done.stderr)


def test_swaks_and_smtplib_by_cram_md5(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("ann:{PLAIN}pencil\n")
    settings = {
        "AUTH_STORE": f"passwd:{tmp_path}/passwd", "AUTH_REQUIRES_TLS": 0, "AUTH_MECHANISMS": "CRAM-MD5",
        "AUTH_FAILURE_DELAY": 0,
    }  # fmt: skip
    with serving(tmp_path, *LINE, settings=settings) as [(host, port)]:
        for password, code in (("pencil", 0), ("pen", 28)):
            done = subprocess.run(
                [program("swaks"), "--server", host, "--port", str(port), "--auth", "CRAM-MD5", "--auth-user", "ann",
                 "--auth-password", password, "--from", "a@b.example", "--to", "c@d.example"],
                capture_output=True, timeout=SECONDS,
            )  # fmt: skip
            assert done.returncode == code, done.stdout
        with smtplib.SMTP(host, port, timeout=SECONDS) as smtp:
            assert smtp.login("ann", "pencil")[0] == 235
