"""Profiles and limits: every tolerance and every number of the IMAP server machine, each a named field.

`DEFAULT` is strict and bounded; `COMPAT` takes and answers what the original imapfront-auth did. Both are values:
change one field with ``dataclasses.replace(DEFAULT, refuses_http=False)``.
"""

from mailfront_proto.record import record


@record(frozen=True)
class Limits:
    """Bounds of one session. None: no bound."""

    command_line: int = 8192
    """Octets in the lines of a command, line ends and all, without its literals. RFC 7162 section 4 wants 8,192."""

    auth_line: int = 12288
    """The same for AUTHENTICATE, and for a response in its exchange: what RFC 4954 section 4 asks of SMTP, so that the
    same mechanisms work here."""

    literal: int = 4096
    """Octets in a literal: what RFC 7888 section 5 (LITERAL-) lets a client send without asking. Before the login
    literals are names and passwords."""

    arguments: int = 16
    """Arguments of a command. No command before the login has more than two."""

    id_pairs: int = 30
    """Pairs in the list of ID (RFC 2971 section 3.3)."""

    tag: int = 256
    """Octets in a tag. Clients take some five."""

    errors_in_row: int | None = 10
    """Unknown or malformed commands in a row before the end: what a client that is lost in the protocol may cost."""

    errors: int | None = 50
    """The same, in all."""

    idle_commands: int | None = 100
    """CAPABILITY, NOOP, ID, and refused STARTTLS and LOGIN, before the end."""

    auth_failures: int | None = 5
    """Failed LOGIN and AUTHENTICATE before the end. RFC 4954 section 4 asks for 3 at least, of SMTP."""


@record(frozen=True)
class Profile:
    """How a server behaves where it has a choice."""

    name: str = "default"

    limits: Limits = Limits()
    """The numbers."""

    strict_grammar: bool = True
    """Commands follow RFC 9051 section 9 to the letter; otherwise words are what stands between blanks (tabs, carriage
    returns and form feeds among them), a string or literal ends its word, and an AUTHENTICATE that was cancelled, or is
    no base64, is answered with NO like any other, not with BAD, and counts as a failed login, as one of an unknown
    mechanism does. (A bare LF ends a line in both: nothing can be hidden behind it here.)"""

    response_codes: bool = True
    """Refusals have response codes, such as ``[AUTHENTICATIONFAILED]`` (RFC 5530)."""

    extensions: bool = True
    """ID (RFC 2971), STARTTLS and literals that do not wait (RFC 7888) are known, and CAPABILITY tells what there
    is. Otherwise it tells what the application says and nothing more."""

    says_bye: bool = True
    """The connection ends with an untagged ``BYE`` (RFC 9051 section 7.1.5). Otherwise LOGOUT says ``* Logging out``,
    and too many failed logins end it without a word."""

    free_authorization_identity: bool = False
    """An authorization identity in PLAIN is ignored, whatever it is (the original does); otherwise one that differs
    from the user name is refused, unless ``machine.sasl`` allows it."""

    auth_as_original: bool = False
    """AUTH fails as in the original: a connection that ends in the middle of it gets an answer, ``End of file
    reached.``, and an initial response that is no base64 comes before a mechanism that is unknown."""

    refuses_http: bool = True
    """An HTTP request closes the connection at once: a browser was made to talk to us."""


DEFAULT = Profile()
"""Strict, bounded, as the RFCs say."""

COMPAT = Profile(
    name="compat",
    limits=Limits(
        command_line=65536,
        auth_line=65536,
        literal=65536,
        tag=65536,
        errors_in_row=None,
        errors=None,
        idle_commands=None,
        auth_failures=None,
    ),
    strict_grammar=False,
    response_codes=False,
    extensions=False,
    says_bye=False,
    free_authorization_identity=True,
    auth_as_original=True,
    refuses_http=False,
)
"""Bytes of the original imapfront-auth. Ask for it by name, and only where an old set-up needs it."""
