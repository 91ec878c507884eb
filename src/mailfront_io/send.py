"""``mailfront send``: one message to one server, from the command line.

`main` reads the arguments, makes the message, calls `mailfront_io.client` and tells what came of it: a line for
each recipient on standard output, everything else on standard error.
"""

import argparse
import getpass
import os
import socket
import sys
from contextlib import ExitStack
from typing import BinaryIO, NoReturn

from mailfront_io.client import (
    AuthenticationRefused,
    BodyType,
    ClientDeadlines,
    Credentials,
    EnvelopeRecipient,
    LocalProtocolError,
    MailOptions,
    Notify,
    RecipientOptions,
    Return,
    SendError,
    SendOptions,
    SendResult,
    Stage,
    Step,
    TLSPolicy,
    TLSUnavailable,
    client_context,
    send_message,
    send_message_asyncio,
    send_message_trio,
)
from mailfront_io.frontends.client_settings import MECHANISMS
from mailfront_io.frontends.client_transcript import printable
from mailfront_proto.secret import Secret

EX_REFUSED = 1
EX_USAGE = 64
EX_TEMPFAIL = 75
EX_CONFIG = 78
EX_INTERRUPTED = 130

SMTP_PORT, LMTP_PORT, SMTPS_PORT, SUBMISSION_PORT = 25, 24, 465, 587
DRIVERS = ("blocking", "asyncio", "trio")

EPILOG = """\
Without --message it makes one: Date, Message-ID, From, To, Subject and a line of text.

Without a port it is 25, with --lmtp 24, with --tls 465, with --user 587. Port 465 is taken to mean --tls, and
port 587, or --user on another, --starttls must; otherwise nothing is encrypted that was not asked for. Where
there is TLS, the server's name and certificate are verified.

What the server offers is used: PIPELINING, SIZE, 8BITMIME, SMTPUTF8, CHUNKING (the message goes by BDAT; --data
says DATA all the same), LIMITS (several transactions, or connections). What the message needs and the server lacks
is never worked around: 8-bit text without 8BITMIME, other letters than ASCII in an address or a header without
SMTPUTF8, a size over the limit, --binary without BINARYMIME and --require-tls without REQUIRETLS refuse the
recipients here, before anything is sent. Reports (--notify, --ret, --envid) are asked for where DSN is offered.

A line for each recipient, with the answer that decided, goes to standard output. Exit code:

   0  all delivered            64  wrong usage
   1  some refused for good    78  wrong configuration: a file, a missing package
  75  some, or all, temporarily not delivered, a lost connection included: send again later

For instance:

  mailfront send 127.0.0.1:2525 --to demo@localhost
  mailfront send mx.example.org --from me@example.net --to you@example.org --message letter.eml --starttls
  mailfront send mail.example.org --user me --password-file secret --to you@example.org --transcript --timing
  printf 'Subject: hi\\n\\nHello\\n' | mailfront send 127.0.0.1:2525 --to demo@localhost --message -
  mailfront send mx.example.org --to you@example.org --notify success,failure --ret hdrs --envid order-17
"""


class UsageError(Exception):
    """Arguments that make no sense together: one sentence with the remedy."""


class ConfigurationError(Exception):
    """A file or a package that is needed and cannot be had: one sentence with the remedy."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see mailfront send --help")


def main(words: list[str]) -> int:
    """``mailfront send``; returns the exit code."""
    try:
        return _send(_arguments(words))
    except (UsageError, LocalProtocolError) as error:
        return _fail(error, EX_USAGE)
    except ConfigurationError as error:
        return _fail(error, EX_CONFIG)
    except SendError as error:
        return _fail(f"{error}{_hint(error)}", EX_TEMPFAIL if error.temporary else EX_REFUSED)
    except OSError as error:  # the message's file, in the midst of it
        return _fail(f"--message: {error.strerror or error}: give a file that can be read", EX_CONFIG)
    except KeyboardInterrupt:
        return _fail("interrupted: the message may or may not have been sent", EX_INTERRUPTED)


def _fail(why: object, code: int) -> int:
    sys.stderr.write(f"mailfront send: {printable(str(why))}\n")
    return code


def _hint(error: SendError) -> str:
    if isinstance(error, TLSUnavailable) and error.reply is None:
        return " (--tls, --starttls may; --tls-name NAME, --ca FILE, --no-verify)"
    if isinstance(error, AuthenticationRefused) and error.reply is None:
        return " (--starttls, --tls, --allow-clear; --auth-mechanism)"
    return ""


# -- arguments --------------------------------------------------------------------------------------------


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="mailfront send",
        usage="mailfront send [OPTIONS] HOST[:PORT] --to ADDRESS",
        description="Sends one message to one SMTP or LMTP server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("host", metavar="HOST[:PORT]", help="name or address; an IPv6 address with a port in brackets: [::1]:25")
    message = parser.add_argument_group("message")
    message.add_argument("--to", metavar="ADDRESS", action="append", default=[], help="a recipient; repeat for more")
    message.add_argument("--from", metavar="ADDRESS", dest="sender", help="default: you at this host; '' for none")
    message.add_argument("--message", metavar="FILE", help="headers and body, sent as they are; -: standard input")
    message.add_argument("--binary", action="store_true", help="its bytes stay as they are, line ends too: BINARYMIME")
    message.add_argument(
        "--eight-bit-headers", action="store_true", help="send a header that is not ASCII even without SMTPUTF8"
    )
    message.add_argument("--data", action="store_true", help="use DATA, not BDAT")
    asked = parser.add_argument_group("what is asked of the server for it")
    asked.add_argument(
        "--notify", metavar="WHEN", type=_notify, help="reports to you: never, or of success,failure,delay some"
    )
    asked.add_argument(
        "--ret", type=str.upper, choices=[kind.value for kind in Return], help="what a report brings back"
    )
    asked.add_argument("--envid", metavar="TEXT", help="what a report calls the message")
    asked.add_argument(
        "--require-tls", action="store_true", help="deliver over verified TLS all the way, or not at all: REQUIRETLS"
    )
    session = parser.add_argument_group("session")
    session.add_argument("--lmtp", action="store_true", help="speak LMTP: one answer for each recipient")
    session.add_argument("--helo", metavar="NAME", help="our name; default: this host's, or its address")
    session.add_argument("--timeout", type=float, metavar="SECONDS", help="for each step; default: as RFC 5321 says")
    session.add_argument("--driver", choices=DRIVERS, default="blocking", help="default: blocking")
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls", action="store_true", help="implicit: the handshake comes first")
    tls.add_argument(
        "--starttls", metavar="[may|must]", choices=("may", "must", "none"), help="must, if it says neither"
    )
    tls.add_argument("--no-verify", action="store_true", help="take any certificate")
    tls.add_argument("--ca", metavar="FILE", help="trust these authorities (PEM), not the system's")
    tls.add_argument("--tls-name", metavar="NAME", help="what the certificate must say; default: HOST")
    auth = parser.add_argument_group("AUTH")
    auth.add_argument("--user", metavar="NAME", help="authenticate; the password is asked for, or in a file:")
    auth.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    auth.add_argument(
        "--auth-mechanism", metavar="NAME", type=str.upper, choices=list(MECHANISMS), help=", ".join(MECHANISMS)
    )
    auth.add_argument("--allow-clear", action="store_true", help="even without TLS")
    shown = parser.add_argument_group("to see what happens")
    shown.add_argument("--transcript", action="store_true", help="what is said, without secrets")
    shown.add_argument("--timing", action="store_true", help="seconds for each step")
    return parser.parse_args(_with_policies(words))


def _notify(text: str) -> frozenset[Notify]:
    words = text.upper().split(",")
    reports = {kind.value: kind for kind in Notify if kind is not Notify.NEVER}
    if words == [Notify.NEVER.value]:
        return frozenset([Notify.NEVER])
    if not all(word in reports for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is neither never nor some of success,failure,delay")
    return frozenset(reports[word] for word in words)


def _with_policies(words: list[str]) -> list[str]:
    """`words`, with the value of ``--starttls`` joined to it: a HOST that follows is none."""
    joined: list[str] = []
    rest = iter(words)
    for word in rest:
        joined.append(word)
        if word == "--starttls":
            value = next(rest, None)
            known = value in ("may", "must", "none")
            joined[-1] = f"--starttls={value if known else 'must'}"
            if value is not None and not known:
                joined += _with_policies([value, *rest])
    return joined


def _where(text: str) -> tuple[str, int | None]:
    """``HOST``, ``HOST:PORT``, ``[IPV6]:PORT``, ``IPV6``."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.endswith("]")):
        host, port = text, ""
    host = host.removeprefix("[").removesuffix("]")
    if not host or (port and not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536)):
        raise UsageError(f"{text!r} is no server: write HOST or HOST:PORT, the port a number from 1 to 65535")
    return host, int(port) if port else None


def _tls_policy(arguments: argparse.Namespace, port: int | None) -> TLSPolicy:
    if arguments.tls and arguments.starttls:
        raise UsageError("--tls and --starttls exclude each other: --tls on port 465, --starttls on others")
    if arguments.starttls:
        return TLSPolicy(arguments.starttls)
    if arguments.tls or port == SMTPS_PORT:
        return TLSPolicy.IMPLICIT
    if port == SUBMISSION_PORT or arguments.require_tls or (arguments.user and not arguments.allow_clear):
        return TLSPolicy.MUST
    return TLSPolicy.NONE


def _default_port(arguments: argparse.Namespace) -> int:
    if arguments.lmtp:
        return LMTP_PORT
    if arguments.tls:
        return SMTPS_PORT
    return SUBMISSION_PORT if arguments.user else SMTP_PORT


def _options(arguments: argparse.Namespace, port: int | None) -> SendOptions:
    options = SendOptions(tls=_tls_policy(arguments, port), lmtp=arguments.lmtp)
    options["mail_options"] = MailOptions(
        body=BodyType.BINARY_MIME if arguments.binary else None,
        ret=Return(arguments.ret) if arguments.ret is not None else None,
        envid=arguments.envid,
        require_tls=arguments.require_tls,
    )
    options["chunking"] = not arguments.data
    options["eight_bit_headers"] = arguments.eight_bit_headers
    options["local_name"] = arguments.helo
    options["tls_name"] = arguments.tls_name
    if options["tls"] is not TLSPolicy.NONE:
        try:
            options["tls_context"] = client_context(arguments.ca, verify=not arguments.no_verify)
        except OSError as error:
            raise ConfigurationError(
                f"--ca {arguments.ca}: {error.strerror or error}: give a PEM file with certificates"
            ) from error
    if arguments.user is not None:
        options["credentials"] = Credentials(
            arguments.user, _password(arguments), arguments.auth_mechanism, arguments.allow_clear
        )
    elif arguments.password_file is not None or arguments.auth_mechanism is not None:
        raise UsageError("--password-file and --auth-mechanism belong to --user NAME: give it, too")
    if arguments.timeout is not None:
        if not 0 < arguments.timeout < float("inf"):
            raise UsageError(f"--timeout {arguments.timeout:g}: give a number of seconds above 0")
        options["deadlines"] = ClientDeadlines().at_most(arguments.timeout)
    if arguments.transcript:
        options["transcript"] = _tell
    if arguments.timing:
        options["on_step"] = _tell_step
    return options


def _password(arguments: argparse.Namespace) -> Secret:
    path = arguments.password_file
    if path is None:
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        except OSError:
            raise UsageError("there is no terminal to ask for the password: give --password-file FILE") from None
        password = getpass.getpass(f"Password of {arguments.user}: ").encode()
    else:
        try:
            with open(path, "rb") as file:
                password = file.readline().rstrip(b"\r\n")
        except OSError as error:
            raise ConfigurationError(
                f"--password-file {path}: {error.strerror}: give a file that can be read"
            ) from error
        if not password:
            raise ConfigurationError(f"--password-file {path}: its first line is empty: write the password there")
    return Secret(password)


# -- the message ------------------------------------------------------------------------------------------


def _host_name() -> str:
    return socket.gethostname() or "localhost"


def _default_sender() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a uid without a name
        user = "postmaster"
    return f"{user}@{_host_name()}"


def _generated(sender: str, recipients: list[str], where: str) -> bytes:
    """A message to try a server with."""
    from email.utils import formatdate, make_msgid

    lines = [
        f"Date: {formatdate(localtime=True)}",
        f"Message-ID: {make_msgid(domain=_host_name())}",
        f"From: <{sender or 'mailer-daemon@' + _host_name()}>",
        f"To: {', '.join(f'<{recipient}>' for recipient in recipients)}",
        "Subject: A message from mailfront send",
        "",
        f"This message was made by mailfront send, to try {where}.",
        "",
    ]
    return "\r\n".join(lines).encode()


def _open(path: str) -> BinaryIO:
    if path == "-":
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except OSError as error:
        raise ConfigurationError(f"--message {path}: {error.strerror}: give a file that can be read") from error


# -- sending ----------------------------------------------------------------------------------------------


def _send(arguments: argparse.Namespace) -> int:
    if not arguments.to:
        raise UsageError("there is no recipient: give one with --to ADDRESS")
    host, port = _where(arguments.host)
    sender = arguments.sender if arguments.sender is not None else _default_sender()
    options = _options(arguments, port)
    asked = RecipientOptions(notify=arguments.notify)
    recipients: list[EnvelopeRecipient] = [(address, asked) for address in arguments.to]
    with ExitStack() as stack:
        message: bytes | BinaryIO
        if arguments.message is None:
            message = _generated(sender, arguments.to, arguments.host)
        else:
            message = stack.enter_context(_open(arguments.message))
        result = _run(arguments.driver, host, port or _default_port(arguments), sender, recipients, message, options)
    return _report(result)


def _run(
    driver: str,
    host: str,
    port: int,
    sender: str,
    recipients: list[EnvelopeRecipient],
    message: bytes | BinaryIO,
    options: SendOptions,
) -> SendResult:
    if driver == "blocking":
        return send_message(host, port, sender, recipients, message, **options)
    try:
        if driver == "asyncio":
            import asyncio

            return asyncio.run(send_message_asyncio(host, port, sender, recipients, message, **options))
        import trio

        async def send() -> SendResult:
            return await send_message_trio(host, port, sender, recipients, message, **options)

        return trio.run(send)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the {driver} driver needs the package {error.name}: pip install 'mailfront[{driver}]'"
        ) from error


def _report(result: SendResult) -> int:
    for recipient in result.recipients:
        reply = str(recipient.reply).replace("\n", " / ")
        whom = " (the answer to MAIL)" if recipient.stage is Stage.MAIL else ""
        sys.stdout.write(f"{printable(str(recipient.address))}: {printable(reply)}{whom}\n")
    sys.stdout.flush()
    if any(recipient.owes_report for recipient in result.recipients):
        _tell("mailfront send: the server offers no DSN: it has the message, and will report nothing")
    if result.refused:
        return EX_REFUSED
    return EX_TEMPFAIL if result.temporary else 0


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def _tell_step(step: Step) -> None:
    sys.stderr.write(f"{step.seconds:9.4f} s  {printable(step.name)}\n")
