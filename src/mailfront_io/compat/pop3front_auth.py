"""The program ``pop3front-auth CVM PROGRAM [ARGUMENTS…]``: POP3 up to the login on descriptors 0 and 1, and then
PROGRAM on the same connection.

USER and PASS are checked by the CVM modules of the first argument, AUTH by those of ``$CVM_SASL_PLAIN`` (or
``$CVM_SASL_LOGIN``) and ``$CVM_SASL_CRAM_MD5``. It starts for every connection, so nothing is imported that it does not
need.
"""

import os
import sys
from collections.abc import Mapping

from mailfront_io.auth.cvm import CVMStore
from mailfront_io.auth.store import NOBODY, Asker, Identity
from mailfront_io.drivers.oneshot import run_descriptors
from mailfront_io.log import line_log
from mailfront_io.ops import Send
from mailfront_io.pop3_service import POP3Service
from mailfront_io.session import Session
from mailfront_io.settings import ConfigurationError, NoImmediateTLS, inherited_environment, is_compat
from mailfront_proto.pop3.replies import Reply
from mailfront_proto.pop3.states import Mode
from mailfront_proto.secret import Secret

EX_CONFIG = 78

USAGE = "usage: pop3front-auth cvm program [args...]\n"
INTERNAL_ERROR = Reply("-ERR", "Internal error")
NO_PROGRAM = Reply("-ERR", "Could not execute second stage")


class PasswordModules(CVMStore):
    """Asks the modules `commands` for USER and PASS, and those of the settings for AUTH."""

    def __init__(self, commands: str, environment: Mapping[str, str]) -> None:
        compat = is_compat(environment)
        super().__init__(commands, compat=compat)
        self._sasl = CVMStore.from_settings(environment.get, compat) or CVMStore()
        self.mechanisms = self._sasl.mechanisms

    @property
    def takes_passwords(self) -> bool:
        """Always: that is what the first argument is for."""
        return True

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        """For PASS, or for SASL."""
        if asker.by_command:
            return await super().verify_password(username, password, asker)
        return await self._sasl.verify_password(username, password, asker)

    async def verify_response(
        self, username: str, challenge: bytes, digest: bytes, asker: Asker = NOBODY
    ) -> Identity | None:
        """For SASL."""
        return await self._sasl.verify_response(username, challenge, digest, asker)


def main() -> int:
    """The console script. Returns the exit code, unless PROGRAM takes over."""
    environment = inherited_environment()
    if len(sys.argv) < 3:
        sys.stderr.write(USAGE)
        return 0
    log = line_log("pop3front-auth", environment.get("MAILFRONT_PROFILE") == "compat")
    modules, *program = sys.argv[1:]

    async def to_program(session: Session, first: bytes) -> int:
        from mailfront_io.frontends.handoff import CannotHandOff, hand_off

        try:
            return await hand_off(session, program, first)
        except CannotHandOff as error:
            reply = NO_PROGRAM if error.step == "execute" else INTERNAL_ERROR
            if session.profile.name != "compat":
                session.log(f"Error: {error}")
            session.log(str(reply))
            await Send(reply.encode())
            return 1

    try:
        store = PasswordModules(modules, environment)
        service = POP3Service(environment, log, mode=Mode.LOGIN, hand_off=to_program, credentials=store)
    except NoImmediateTLS:
        return 1
    except (ConfigurationError, ValueError) as error:
        log(f"Fatal: {error}")
        os.write(1, b"-ERR [SYS/PERM] This server is not configured correctly\r\n")
        return EX_CONFIG
    return run_descriptors(service.session)


if __name__ == "__main__":
    sys.exit(main())
