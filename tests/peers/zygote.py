"""Runs one-shot programs of ours by the hundred: imports them once, then forks for each run.

A line of JSON on standard input asks for a run (see `OneShot.run` in one_shot.py), a line of JSON answers it.
The child is the program itself: its own process, its own descriptors 0, 1 and 2, its own environment.
"""

import json
import os
import sys
from typing import Any

from mailfront_io import cli, pop3front_maildir
from mailfront_io.compat import imapfront_auth, pop3front_auth

PROGRAMS = {
    "mailfront": cli.main,
    "imapfront-auth": imapfront_auth.main,
    "pop3front-auth": pop3front_auth.main,
    "pop3front-maildir": pop3front_maildir.main,
}


def run(request: dict[str, Any]) -> int:
    """Run `request` in a child; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        read_end, write_end = os.pipe()
        with open(request["stdin"], "rb") as source:
            os.write(write_end, source.read())  # fits: see MAX_INPUT
        os.close(write_end)
        os.dup2(read_end, 0)
        os.close(read_end)
        for descriptor, path in ((1, request["stdout"]), (2, request["stderr"])):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            os.dup2(file, descriptor)
            os.close(file)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = request["argv"]
        try:
            status = PROGRAMS[request["argv"][0]]() or 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    requests = os.fdopen(os.dup(0))
    for line in requests:
        pid = run(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"pid": pid, "exit": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
