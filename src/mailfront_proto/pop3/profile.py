"""Profiles and limits: every tolerance and every number of the POP3 server machine, each a named field.

`DEFAULT` is strict and bounded; `COMPAT` takes and answers what the original mailfront did. Both are values: change
one field with ``dataclasses.replace(DEFAULT, refuses_http=False)``.
"""

from mailfront_proto.record import record


@record(frozen=True)
class Limits:
    """Bounds of one session. None: no bound."""

    command_line: int = 512
    """Octets in a command line, CRLF included. RFC 2449 section 4 wants 255."""

    auth_line: int = 12288
    """Octets in an AUTH command or response, CRLF included: what RFC 4954 section 4 asks of SMTP, so that the same
    mechanisms work here."""

    errors_in_row: int | None = 10
    """Unknown or malformed commands in a row before the end: what a client that is lost in the protocol may cost."""

    errors: int | None = 50
    """The same, in all."""

    idle_commands: int | None = 100
    """Commands that bring no message nearer (CAPA, NOOP, LANG, UTF8, USER, STLS, a list of mechanisms, STAT, LAST,
    RSET, and LIST and UIDL of all messages) since the login or the last RETR, TOP or DELE that was taken."""

    user_commands: int | None = 20
    """USER commands before ``-ERR Too many USER commands issued``. Nobody mistypes a name so often."""

    auth_failures: int | None = 5
    """Refused PASS and AUTH before the end. RFC 4954 section 4 asks for 3 at least, of SMTP."""


@record(frozen=True)
class Profile:
    """How a server behaves where it has a choice."""

    name: str = "default"

    limits: Limits = Limits()
    """The numbers."""

    strict_lines: bool = True
    """A control character in a command, a bare CR among them, is a syntax error. (A bare LF ends a line: nothing can be
    hidden behind it here.)"""

    response_codes: bool = True
    """A refusal begins with its response code, such as ``[AUTH]``, where it has one (RFC 2449 section 8, RFC 3206)."""

    extensions: bool = True
    """LANG (RFC 6856) is known, UTF8 where it is offered, and CAPA tells more than the original's four lines, SASL
    behind the login as well."""

    spaces_in_password: bool = True
    """What follows ``PASS`` and one space is the password, spaces at its beginning included (RFC 1939 section 7);
    otherwise those are dropped."""

    free_authorization_identity: bool = False
    """An authorization identity in PLAIN is ignored, whatever it is (the original does); otherwise one that differs
    from the user name is refused, unless ``machine.sasl`` allows it."""

    auth_as_original: bool = False
    """AUTH fails as in the original: a connection that ends in the middle of it gets an answer, ``End of file
    reached.``, and an initial response that is no base64 comes before a mechanism that is unknown."""

    counts_every_auth: bool = False
    """Every AUTH that fails counts as a failed login, one of an unknown mechanism and a cancelled one, too (the
    original); otherwise those that could have let somebody in."""

    rescans_on_reset: bool = False
    """RSET opens the mailbox anew, as the original does: new messages may be there, and numbers may change. RFC 1939
    section 5 has them stay; the default only takes the marks back."""

    retr_takes_lines: bool = False
    """RETR and TOP are one command, with a number of lines or without, as in the original. RFC 1939 gives RETR none,
    and TOP one that may not be left out."""

    crlf_files: bool = True
    """A line of a message may end in CRLF as well as in LF. Otherwise a CR is content like any other, and CRLF goes out
    as CR CR LF, as the original has it."""

    ends_with_empty_line: bool = False
    """A message is sent with an empty line more than it has, unless its last line has no end (the original)."""

    refuses_http: bool = True
    """An HTTP verb as a command closes the connection at once: a browser was made to talk to us."""


DEFAULT = Profile()
"""Strict, bounded, as the RFCs say."""

COMPAT = Profile(
    name="compat",
    limits=Limits(
        command_line=65536,
        auth_line=65536,
        errors_in_row=None,
        errors=None,
        idle_commands=None,
        user_commands=None,
        auth_failures=None,
    ),
    strict_lines=False,
    response_codes=False,
    extensions=False,
    spaces_in_password=False,
    free_authorization_identity=True,
    auth_as_original=True,
    counts_every_auth=True,
    rescans_on_reset=True,
    retr_takes_lines=True,
    crlf_files=False,
    ends_with_empty_line=True,
    refuses_http=False,
)
"""Bytes of the original mailfront. Ask for it by name, and only where an old set-up needs it."""
