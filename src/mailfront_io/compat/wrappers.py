"""The programs ``smtpfront-echo``, ``smtpfront-qmail``, and so for QMTP and QMQP: ``mailfront`` with a protocol, a
backend and the usual plugins; their arguments are more plugins."""

import sys

from mailfront_io.cli import one_shot

QMAIL_PLUGINS = (
    *("check-fqdn", "counters", "mailrules", "relayclient", "cvm-validate", "qmail-validate", "add-received"),
    "patterns",
)


def smtpfront_echo() -> int:
    """The console script. Returns the exit code, as the others do."""
    return one_shot(["smtp", "echo", *sys.argv[1:]])


def smtpfront_qmail() -> int:
    """The console script."""
    return one_shot(["smtp", "qmail", "cvm-authenticate", *QMAIL_PLUGINS, *sys.argv[1:]])


def qmtpfront_echo() -> int:
    """The console script."""
    return one_shot(["qmtp", "echo", *sys.argv[1:]])


def qmtpfront_qmail() -> int:
    """The console script."""
    return one_shot(["qmtp", "qmail", *QMAIL_PLUGINS, *sys.argv[1:]])


def qmqpfront_echo() -> int:
    """The console script."""
    return one_shot(["qmqp", "echo", *sys.argv[1:]])


def qmqpfront_qmail() -> int:
    """The console script."""
    return one_shot(["qmqp", "qmail", *QMAIL_PLUGINS, *sys.argv[1:]])
