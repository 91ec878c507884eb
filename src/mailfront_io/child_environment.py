"""The environment of the programs that a session starts.

A one-shot program passes on what it has inherited, for it runs for one session. A server has the settings of many,
and passes on what programs need in general, what is of qmail, what ``$CHILD_ENVIRONMENT`` names, and what is the
session's own: its facts, what rules have assigned, and who has logged in. Secrets stay behind in any case, unless they
are named; so do values that no honest setting has.
"""


from mailfront_io.plugin import Kind, Setting
from mailfront_io.session import Session
from mailfront_proto.lazy_patterns import compile_later

CHILD_ENVIRONMENT = Setting(
    "CHILD_ENVIRONMENT", Kind.LIST, "variables that programs get besides the usual ones, secrets too"
)

LONGEST = 32 * 1024
"""Characters of a value; the system refuses to start a program with one of 128 KiB."""

_USUAL = compile_later(r"(PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|LC_[A-Z]+|QMAIL[A-Z]*)\Z")
_SECRET = compile_later(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|PRIVATE|_KEY\Z|_PASS\Z")
_CONTROL = compile_later(r"[\x00-\x1f\x7f]")


def child_environment(session: Session) -> dict[str, str]:
    """All variables of a program that `session` starts."""
    own = session.own_env()
    named = (session.getenv("CHILD_ENVIRONMENT") or "").split(":")
    return {
        name: value
        for name, value in session.exported_env().items()
        if (name in named or ((name in own or _USUAL.match(name)) and not _SECRET.search(name)))
        and _is_honest(name, value)
    }


def _is_honest(name: str, value: str) -> bool:
    return bool(name) and "=" not in name and len(value) <= LONGEST and not _CONTROL.search(name + value)
