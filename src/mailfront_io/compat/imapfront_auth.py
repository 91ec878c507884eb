"""The program ``imapfront-auth PROGRAM [ARGUMENTS…]``: IMAP up to the login on descriptors 0 and 1, and then PROGRAM on
the same connection.

Logins are checked by the CVM modules of ``$CVM_SASL_PLAIN`` and ``$CVM_SASL_CRAM_MD5``, or by ``$AUTH_STORE``. It
starts for every connection, so nothing is imported that it does not need.
"""

import os
import sys

from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.imap_service import IMAPService
from mailfront_io.log import line_log
from mailfront_io.settings import ConfigurationError, NoImmediateTLS, inherited_environment

EX_CONFIG = 78


def main() -> int:
    """The console script. Returns the exit code, unless PROGRAM takes over."""
    environment = inherited_environment()
    log = line_log("imapfront-auth", environment.get("MAILFRONT_PROFILE") == "compat")
    program = sys.argv[1:]
    turned_away = ""
    if not program:
        turned_away = "Usage: imapfront-auth imapd [args ...]"
    elif not environment.get("CVM_SASL_PLAIN") and not environment.get("AUTH_STORE"):
        turned_away = "$CVM_SASL_PLAIN is not set"
    try:
        service = IMAPService(program, environment, log, turned_away=turned_away)
    except NoImmediateTLS:
        return 1
    except ConfigurationError as error:
        log(f"Fatal: {error}")
        os.write(1, b"* BYE [UNAVAILABLE] This server is not configured correctly\r\n")
        return EX_CONFIG
    return run_descriptors(service.session)


if __name__ == "__main__":
    sys.exit(main())
