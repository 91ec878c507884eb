"""The program ``pop3front-maildir [DEFAULT-MAILDIR]``: POP3 on descriptors 0 and 1, from behind the login on.

The maildir is ``$MAILBOX``, else the argument. It starts for every connection, so nothing is imported that it does not
need.
"""

import os
import sys

from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.log import line_log
from mailfront_io.pop3_service import POP3Service
from mailfront_io.settings import ConfigurationError, inherited_environment
from mailfront_proto.pop3.states import Mode

EX_CONFIG = 78


def main() -> int:
    """The console script. Returns the exit code."""
    environment = inherited_environment()
    log = line_log("pop3front-maildir", environment.get("MAILFRONT_PROFILE") == "compat")
    mailbox = environment.get("MAILBOX") or next(iter(sys.argv[1:]), None)
    try:
        service = POP3Service(environment, log, mode=Mode.MAILBOX, mailbox=mailbox)
    except ConfigurationError as error:
        log(f"Fatal: {error}")
        os.write(1, b"-ERR [SYS/PERM] This server is not configured correctly\r\n")
        return EX_CONFIG
    return run_descriptors(service.session)


if __name__ == "__main__":
    sys.exit(main())
