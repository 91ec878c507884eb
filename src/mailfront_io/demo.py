"""The development server: what ``mailfront serve`` does without a line, on defaults that are all embedded.

Everything it makes lives in one directory: the database of users, the password of the one there is, a self-signed
certificate, and that user's maildir. It takes mail for any address at ``localhost`` and relays nothing; over POP3 it
gives it back, and over IMAP, if Dovecot is installed.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping

from mailfront_io.auth.sqlite import SQLiteStore, UserDatabase, UserExists
from mailfront_io.auth.store import StoreUnavailable
from mailfront_io.imap_service import IMAPService
from mailfront_io.pop3_service import POP3Service
from mailfront_io.server import Endpoint, parse_address
from mailfront_io.service import Service
from mailfront_io.settings import ConfigurationError
from mailfront_proto.secret import Secret

USER = "demo"
SMTP_PORT, SMTPS_PORT, SUBMISSION_PORT = 2525, 2465, 2587
POP3_PORT, POP3S_PORT = 2110, 2995
IMAP_PORT, IMAPS_PORT = 2143, 2993
QMTP_PORT, QMQP_PORT = 2209, 2628

DOVECOT_IMAP = tuple(f"{prefix}/dovecot/imap" for prefix in ("/usr/lib", "/usr/libexec", "/usr/local/libexec"))
"""Where Debian, Fedora and FreeBSD have it."""


class Demo:
    """`directory`: where its data is kept, made when it is missing. Raises `ConfigurationError`."""

    def __init__(self, directory: str, environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        self._directory = directory
        self._log = log
        self._maildir = os.path.join(directory, "maildirs", USER)
        self._password_file = os.path.join(directory, "demo-password")
        self._certificate = os.path.join(directory, "certificate.pem")
        try:
            maildirs = os.path.join(directory, "maildirs")
            boxes = (os.path.join(self._maildir, name) for name in ("tmp", "new", "cur"))
            for path in (directory, maildirs, self._maildir, *boxes):
                os.makedirs(path, mode=0o700, exist_ok=True)
            self._password = self._read_password()
            self._users = os.path.join(directory, "users.sqlite")
            self._keep_user()
            if not os.path.exists(self._certificate):
                make_certificate(self._certificate)
        except OSError as error:
            raise ConfigurationError(
                f"--data {directory}: {error.filename}: {error.strerror}: name a directory that can be written"
            ) from error
        except StoreUnavailable as error:
            raise ConfigurationError(f"--data {directory}: {error}") from error
        self._environment = {
            **environment,
            "ACCEPT_DOMAINS": "localhost",
            "MAILDIR_PATH": self._maildir,
            "MAILDIR_ROOT": os.path.dirname(self._maildir),
            "TLS_CERTFILE": self._certificate,
        }
        self._environment.pop("TLS_KEYFILE", None)
        self._environment.pop("TLS_IMMEDIATE", None)

    def _read_password(self) -> str:
        try:
            with open(self._password_file, encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            password = secrets.token_hex(12)
            descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(password + "\n")
            return password

    def _keep_user(self) -> None:
        """The database of users has the one whose password is in the file."""
        database, password = UserDatabase(self._users), Secret(self._password.encode())
        database.create()
        try:
            database.add(USER, password)
        except UserExists:
            if database.verify(USER, password) is None:
                database.set_password(USER, password)

    def endpoints(self, listen: str | None) -> list[Endpoint]:
        """The listeners; `listen`: HOST, or HOST:0 for any free ports."""
        host, port = parse_address(listen or "127.0.0.1", SMTP_PORT)
        if port not in (0, SMTP_PORT):
            raise ConfigurationError(
                f"--listen {listen}: the development server has ports of its own: write HOST or HOST:0, or "
                "give a line such as: smtp echo accept"
            )
        store = SQLiteStore(self._users)
        imap, imap_missing = find_imap()
        for_imap = {"SETUP_ENV": "dovecot", "HOME": os.path.abspath(self._directory)}

        def imap_login(environment: Mapping[str, str]) -> IMAPService:
            return IMAPService(
                [imap], {**environment, **for_imap}, self._log, credentials=store, turned_away=imap_missing
            )

        receive = ["counters", "accept-domains", "add-received"]
        submit = ["authenticate", "require-auth", *receive]
        in_tls = {**self._environment, "TLS_IMMEDIATE": ""}
        return [
            Endpoint(Service("smtp", "maildir", receive, self._environment, self._log), host, port),
            Endpoint(
                Service("smtp", "maildir", submit, in_tls, self._log, store), host, port and SMTPS_PORT
            ),
            Endpoint(
                Service("smtp", "maildir", submit, self._environment, self._log, store),
                host,
                port and SUBMISSION_PORT,
            ),
            Endpoint(Service("qmtp", "maildir", receive, self._environment, self._log), host, port and QMTP_PORT),
            Endpoint(Service("qmqp", "maildir", receive, self._environment, self._log), host, port and QMQP_PORT),
            Endpoint(POP3Service(self._environment, self._log, credentials=store), host, port and POP3_PORT),
            Endpoint(POP3Service(in_tls, self._log, credentials=store), host, port and POP3S_PORT),
            Endpoint(imap_login(self._environment), host, port and IMAP_PORT),
            Endpoint(imap_login(in_tls), host, port and IMAPS_PORT),
        ]

    def announce(self, names: list[str]) -> None:
        """Print what is served and what to try."""
        smtp, smtps, submission, qmtp, qmqp, pop3, pop3s, imap, imaps = names
        imap_missing = find_imap()[1]
        program = sys.argv[0] if os.access(sys.argv[0], os.X_OK) else "mailfront"
        if program == shutil.which("mailfront"):
            program = "mailfront"
        elif os.path.isabs(program):
            program = min(program, os.path.relpath(program), key=len)
        sys.stdout.write(
            f"""\
mailfront is listening; Ctrl-C stops it.

  SMTP         {smtp}  mail for any address at localhost, STARTTLS
  SMTP in TLS  {smtps}  for users, AUTH
  submission   {submission}  for users, STARTTLS and AUTH
  QMTP, QMQP   {qmtp}, {qmqp}  mail for any address at localhost
  POP3         {pop3}  for users, STLS
  POP3 in TLS  {pop3s}
  IMAP         {imap}  {imap_missing or "for users, STARTTLS"}
  IMAP in TLS  {imaps}

  user {USER}, password {self._password}   (kept in {self._password_file})
  mail arrives in {self._maildir}/new

Try, in another terminal:

  {program} send {smtp} --to demo@localhost
  {program} send {submission} --to demo@localhost --starttls --no-verify \\
      --user {USER} --password-file {self._password_file}
  cat {self._maildir}/new/*
  curl --insecure --user {USER} pop3s://{pop3s}/1
{"" if imap_missing else f"  curl --insecure --user {USER} 'imaps://{imaps}/INBOX;MAILINDEX=1'"}
"""
        )
        sys.stdout.flush()


def find_imap() -> tuple[str, str]:
    """Dovecot's program that speaks IMAP behind a login; and, where it cannot be had, a sentence that says why."""
    path = next((path for path in DOVECOT_IMAP if os.access(path, os.X_OK)), "")
    if not path:
        return "imap", "Dovecot's imap is not installed (Debian: apt-get install dovecot-imapd)"
    if os.geteuid() == 0:
        return path, "Dovecot's imap serves no mail to root: start mailfront as another user"
    return path, ""


def make_certificate(path: str) -> None:
    """A self-signed certificate for localhost and its key, in one PEM file of mode 0600; good for 10 years."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "the development server makes its certificate with the package cryptography: "
            "pip install 'mailfront[server]'"
        ) from error
    import datetime
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("localhost"),
                    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
                    x509.IPAddress(ipaddress.IPv6Address("::1")),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    os.rename(temporary, path)
