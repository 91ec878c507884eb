"""``mailfront user``: who may log in, kept in an SQLite file of users."""

import argparse
import getpass
import os
import sys
from typing import NoReturn

from mailfront_io.auth.sqlite import NoSuchUser, UserDatabase, UserExists
from mailfront_io.auth.store import StoreUnavailable
from mailfront_io.frontends.client_transcript import printable
from mailfront_proto.secret import Secret

EX_REFUSED = 1
EX_USAGE = 64
EX_CONFIG = 78

DEFAULT_DATABASE = "mailfront-data/users.sqlite"

MAX_PASSWORD = 1024
"""Octets of a password that is read from standard input."""

DESCRIPTION = "Keeps the users of a server in an SQLite file: who may log in, over SMTP, POP3 and IMAP alike."

EPILOG = f"""\
The file is named by --database FILE, else by $AUTH_STORE=sqlite:FILE, else it is {DEFAULT_DATABASE}.
The first "add" makes it. A server uses it with AUTH_STORE=sqlite:FILE; it sees changes at once.

The password is asked for twice, without echo. Where standard input is no terminal, its first line is the password. It
is never an argument, which everybody on the machine could read. The file holds no password, but what PLAIN, LOGIN and
SCRAM-SHA-256 can be verified with (RFC 5803).

For instance:

  mailfront user add ann
  mailfront user add ann@example.org --mailbox example.org/ann
  pwgen 16 1 | tee /dev/tty | mailfront user passwd ann
  mailfront user list
  mailfront user verify ann
  AUTH_STORE=sqlite:{DEFAULT_DATABASE} mailfront serve smtp maildir authenticate require-auth accept

Exit code: 0 done, 1 no such user, the user exists, or a wrong password, 64 wrong usage, 78 the file cannot be used.
"""


class UsageError(Exception):
    """Arguments that make no sense: one sentence with the remedy."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see mailfront user --help")


def main(words: list[str]) -> int:
    """``mailfront user``; returns the exit code."""
    try:
        arguments = _arguments(words)
        database = UserDatabase(_database(arguments.database))
        return int(_COMMANDS[arguments.command](database, arguments))
    except UsageError as error:
        return _fail(error, EX_USAGE)
    except ValueError as error:
        return _fail(error, EX_USAGE)
    except NoSuchUser as error:
        return _fail(f"there is no user {error}: mailfront user list shows who there is", EX_REFUSED)
    except UserExists as error:
        return _fail(f"there is a user {error} already: mailfront user passwd changes the password", EX_REFUSED)
    except StoreUnavailable as error:
        return _fail(error, EX_CONFIG)


def _fail(why: object, code: int) -> int:
    sys.stderr.write(f"mailfront user: {printable(str(why))}\n")
    return code


def _arguments(words: list[str]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser("mailfront user", description=DESCRIPTION, epilog=EPILOG, formatter_class=layout)
    parser.add_argument("--database", metavar="FILE", help="the SQLite file of users")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="add|passwd|list|remove|verify", parser_class=_Parser
    )
    for command, about in (
        ("add", "add a user"),
        ("passwd", "give a user another password"),
        ("list", "list the users, one a line"),
        ("remove", "remove a user; the mail stays"),
        ("verify", "check a user's password, as a server would"),
    ):
        parsed = commands.add_parser(command, help=about, description=f"Use it to {about}.")
        # Also behind the command; what was given in front stays.
        parsed.add_argument("--database", metavar="FILE", default=argparse.SUPPRESS, help="the SQLite file of users")
        if command != "list":
            parsed.add_argument("name", metavar="NAME", help="as it is said at the login, ann or ann@example.org")
        if command == "add":
            parsed.add_argument(
                "--mailbox", metavar="DIRECTORY", default="", help="where the mail is; default: by the user's name"
            )
            parsed.add_argument("--uid", type=_id, help="whom programs that serve the user run as")
            parsed.add_argument("--gid", type=_id, help="the same for the group")
    return parser.parse_args(words)


def _id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:11]) < 2**32 - 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no id of a user who may log in: 1 to 4294967294")
    return int(text)


def _database(given: str | None) -> str:
    if given is not None:
        return given
    kind, _, path = os.environ.get("AUTH_STORE", "").partition(":")
    return path if kind == "sqlite" and path else DEFAULT_DATABASE


def _ask_password(name: str, *, twice: bool) -> Secret:
    """From the terminal, or from the first line of standard input."""
    if not sys.stdin.isatty():
        line = sys.stdin.buffer.readline(MAX_PASSWORD + 2).rstrip(b"\r\n")
        if not line or len(line) > MAX_PASSWORD:
            raise UsageError(f"the first line of standard input is the password: 1 to {MAX_PASSWORD} octets")
        return Secret(line)
    try:
        password = getpass.getpass(f"Password of {printable(name)}: ")
        if twice and getpass.getpass("Again: ") != password:
            raise UsageError("the two passwords differ: nothing was changed")
    except EOFError:
        raise UsageError("no password was given: nothing was changed") from None
    return Secret(password.encode("utf-8", "surrogateescape"))


def _add(database: UserDatabase, arguments: argparse.Namespace) -> int:
    database.create()
    if any(user.username == arguments.name for user in database.users()):
        raise UserExists(arguments.name)  # before a password is asked for
    password = _ask_password(arguments.name, twice=True)
    database.add(arguments.name, password, mailbox=arguments.mailbox, uid=arguments.uid, gid=arguments.gid)
    sys.stdout.write(f"{printable(arguments.name)} was added to {printable(database.path)}\n")
    return 0


def _passwd(database: UserDatabase, arguments: argparse.Namespace) -> int:
    if database.find(arguments.name) is None:
        raise NoSuchUser(arguments.name)
    database.set_password(arguments.name, _ask_password(arguments.name, twice=True))
    sys.stdout.write(f"{printable(arguments.name)} has another password\n")
    return 0


def _list(database: UserDatabase, arguments: argparse.Namespace) -> int:
    for user in database.users():
        known = {"mailbox": user.mailbox, "uid": user.uid, "gid": user.gid}
        facts = "".join(f" {key}={value}" for key, value in known.items() if value not in ("", None))
        sys.stdout.write(printable(user.username + facts) + "\n")
    return 0


def _remove(database: UserDatabase, arguments: argparse.Namespace) -> int:
    database.remove(arguments.name)
    sys.stdout.write(f"{printable(arguments.name)} was removed; the mail stays where it is\n")
    return 0


def _verify(database: UserDatabase, arguments: argparse.Namespace) -> int:
    identity = database.verify(arguments.name, _ask_password(arguments.name, twice=False))
    if identity is None:
        return _fail("no such user, or another password", EX_REFUSED)
    sys.stdout.write("the password is right\n")
    return 0


_COMMANDS = {"add": _add, "passwd": _passwd, "list": _list, "remove": _remove, "verify": _verify}
