"""``mailfront queue``: the files that the backend queuedir has written, listed, shown, and handed on to a program."""

import argparse
import errno
import os
import signal
import sys
import time
from typing import NoReturn

from mailfront_io.backends.qmail import TIMED_OUT, refusal
from mailfront_io.frontends.client_transcript import printable
from mailfront_io.queue_files import Form, NotQueued, Queued, files_of, hand_on, read_envelope, remove, taken

EX_LEFT = 1
EX_USAGE = 64
EX_CONFIG = 78

BLOCK = 64 * 1024

DESCRIPTION = "Lists and shows the files that the backend queuedir has written, and hands them on to a program."

EPILOG = """\
DIR is the directory that $QUEUEDIR names, with the files in its "new" (or $QUEUEDIR_DEST), or the directory of the
files itself. The original's files are read as well.

deliver starts PROGRAM once for each file, the oldest first, with the message on descriptor 0. As qmail-queue does, it
reads the envelope from descriptor 1: "F" sender NUL, "T" recipient NUL for each recipient, NUL. With --sendmail it gets
"-f SENDER -- RECIPIENT..." behind its arguments instead. Its exit code 0 means that it has the message: the file is
removed then, and stays otherwise. A file is locked meanwhile, so deliver may run twice at once, or from cron every
minute; one file is handed on by one of them. SIGTERM and SIGINT stop it behind the file that it is at. If it is killed,
or the machine stops, between the exit code and the removal, the next run hands the message on again.

For instance:

  QUEUEDIR=/var/spool/in mailfront serve smtp queuedir accept-domains add-received
  mailfront queue list /var/spool/in
  mailfront queue show /var/spool/in/new/1700000000.123456.789
  mailfront queue show --message /var/spool/in/new/1700000000.123456.789 >copy.eml
  mailfront queue deliver /var/spool/in /var/qmail/bin/qmail-queue
  mailfront queue deliver --sendmail /var/spool/in /usr/sbin/sendmail -i

Exit code: 0 done, 1 some files are left in the queue that could not be read or handed on, 64 wrong usage, 78 the
directory or the file cannot be read.
"""


class UsageError(Exception):
    """Arguments that make no sense: one sentence with the remedy."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see mailfront queue --help")


def main(words: list[str]) -> int:
    """``mailfront queue``; returns the exit code."""
    try:
        arguments = _arguments(words)
        code: int = _COMMANDS[arguments.command](arguments)
        return code
    except UsageError as error:
        return _fail(error, EX_USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who read us has gone; nothing is to be said at the end
        return 0
    except NotQueued as error:
        return _fail(f"{arguments.file}: {error}: name a file of a queuedir", EX_CONFIG)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror, EX_CONFIG)


def _fail(why: object, code: int) -> int:
    sys.stderr.write(f"mailfront queue: {printable(str(why))}\n")
    return code


def _say(line: str) -> None:
    sys.stdout.write(printable(line) + "\n")
    sys.stdout.flush()


def _arguments(words: list[str]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser("mailfront queue", description=DESCRIPTION, epilog=EPILOG, formatter_class=layout)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="list|show|deliver", parser_class=_Parser
    )
    about = "list the files of a queue: name, age, size, sender, recipients"
    parsed = commands.add_parser("list", help=about, description=f"Use it to {about}.")
    parsed.add_argument("directory", metavar="DIR", nargs="?", help="the queue; default: $QUEUEDIR")
    about = "show the envelope and the message of a file"
    parsed = commands.add_parser("show", help=about, description=f"Use it to {about}.")
    parsed.add_argument("--message", action="store_true", help="the message alone, byte for byte")
    parsed.add_argument("file", metavar="FILE")
    about = "hand every file on to a program, and remove those that it takes"
    parsed = commands.add_parser("deliver", help=about, description=f"Use it to {about}. See mailfront queue --help.")
    parsed.add_argument("--sendmail", action="store_true", help="PROGRAM takes the envelope as sendmail does")
    parsed.add_argument("--quiet", action="store_true", help="say nothing of what was handed on")
    parsed.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=600.0, help="what one may take; default: 600"
    )
    parsed.add_argument("directory", metavar="DIR")
    parsed.add_argument("program", metavar="PROGRAM", help="the program, and its arguments")
    parsed.add_argument("arguments", metavar="", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 86400):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds: 1 to 86400")
    return float(text)


def _list(arguments: argparse.Namespace) -> int:
    directory = arguments.directory or os.environ.get("QUEUEDIR")
    if not directory:
        raise UsageError("name the queue's directory, or set $QUEUEDIR")
    code = 0
    for path in files_of(directory):
        try:
            queued, changed = _look(path)
        except FileNotFoundError:
            continue  # delivered in the meantime
        except (NotQueued, OSError) as error:
            _say(f"{os.path.basename(path)}: {_why(error)}")
            code = EX_LEFT
            continue
        more = f" and {len(queued.recipients) - 1} more" if len(queued.recipients) > 1 else ""
        _say(
            f"{os.path.basename(path)} {_age(time.time() - changed)} {queued.size} <{queued.sender}> "
            f"<{queued.recipients[0]}>{more}"
        )
    return code


def _look(path: str) -> tuple[Queued, float]:
    descriptor = _open(path)
    try:
        return read_envelope(descriptor), os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(int(seconds), 0)}s"


def _show(arguments: argparse.Namespace) -> int:
    descriptor = _open(arguments.file)
    try:
        queued = read_envelope(descriptor)
        os.lseek(descriptor, queued.message_at, os.SEEK_SET)
        if arguments.message:
            sys.stdout.flush()
            while block := os.read(descriptor, BLOCK):
                sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            return 0
        _say(f"sender: <{queued.sender}>")
        for recipient in queued.recipients:
            _say(f"recipient: <{recipient}>")
        _say(f"size: {queued.size}")
        _say("")
        with open(descriptor, "rb", closefd=False) as file:
            while line := file.readline(BLOCK):
                _say(line.removesuffix(b"\n").decode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)
    return 0


def _deliver(arguments: argparse.Namespace) -> int:
    stopped: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: stopped.append(received))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        return _deliver_until(stopped, arguments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _deliver_until(stopped: list[int], arguments: argparse.Namespace) -> int:
    """Hand files on until there is something in `stopped`."""
    paths = files_of(arguments.directory)
    handed_on = left = others = 0
    for number, path in enumerate(paths, 1):
        if stopped:
            break
        try:
            with taken(path) as descriptor:
                if descriptor is None:
                    others += 1
                    continue
                why = _hand_on(arguments, descriptor)
                if why is None:
                    remove(path)
        except NotQueued as error:
            why = str(error)
        if why is None:
            handed_on += 1
        else:
            left += 1
        if why is not None or not arguments.quiet:
            _say(f"{number}/{len(paths)} {os.path.basename(path)}: {why or 'handed on'}")
    untried = len(paths) - handed_on - left - others
    if not arguments.quiet or left or untried:
        stop = f", {untried} not tried: stopped by a signal" if untried else ""
        _say(f"{handed_on} handed on, {left} left, {others} taken by others{stop}")
    return EX_LEFT if left or untried else 0


def _hand_on(arguments: argparse.Namespace, descriptor: int) -> str | None:
    """Hand a file on; why it is left, or None. Raises `NotQueued`; `OSError`: no file can be handed on."""
    form = Form.SENDMAIL if arguments.sendmail else Form.QMAIL_QUEUE
    program = [arguments.program, *arguments.arguments]
    queued = read_envelope(descriptor)
    try:
        code = hand_on(descriptor, queued, program, form, arguments.timeout, os.environ)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        return f"{len(queued.recipients)} recipients are too many for arguments: use a program that reads the envelope"
    if code is None:
        return "the program was killed, it took too long" if arguments.sendmail else refusal(TIMED_OUT).text
    if code < 0:
        return f"the program was killed by signal {-code}"
    if code and not arguments.sendmail:
        return f"exit code {code}: {refusal(code).text}"
    return f"exit code {code}" if code else None


_COMMANDS = {"list": _list, "show": _show, "deliver": _deliver}
