"""The plugin and backend API: responses, settings, and the two base classes.

A plugin overrides the hooks that it needs, each a plain ``def`` or, when it awaits operations
(`mailfront_io.ops`), an ``async def``; nothing else may be awaited. A hook answers with a `Response` or
None. One object serves one connection, from ``connect`` to ``disconnect``; what connections share is made by
``configure``, once for each service.
"""

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, final

from mailfront_io.session import Session
from mailfront_proto.lazy_patterns import compile_later
from mailfront_proto.record import record

_KEYWORD = compile_later(r"[A-Za-z0-9][A-Za-z0-9-]*\Z", re.ASCII)
_BAD_TEXT = compile_later("[\x00-\x08\x0b-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")


_CODES = frozenset((*range(200, 300), *range(400, 600)))


def _check_code(code: int) -> None:
    if not isinstance(code, int):  # 250.0 is 250 for whoever keeps what was sent
        raise TypeError(f"a response code is a whole number, not {code!r}")
    if code not in _CODES:
        raise ValueError(f"a response code is 200 to 299 or 400 to 599, not {code}")


@final
class Response:
    r"""An answer of a hook: a reply `code`, a `text` (lines separated by ``\n``; empty: the usual text),
    and whether it is `final`, so that no later plugin is asked.

    Codes of 400 and above refuse, 400 to 499 for now; there is no 3yz. Control bytes in the text, and lone
    surrogates that stand for no byte, become ``?``.
    """

    __slots__ = ("code", "final", "text")

    def __init__(self, code: int, text: str = "", final: bool = False) -> None:
        if type(code) is not int or code not in _CODES:
            _check_code(code)
        self.code = code
        self.text = text if text.isprintable() else _BAD_TEXT.sub("?", text)
        self.final = final

    @property
    def refuses(self) -> bool:
        """Whether this is an error response."""
        return self.code >= 400

    def __repr__(self) -> str:
        return f"Response({self.code}, {self.text!r}{', final=True' if self.final else ''})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Response):
            return NotImplemented
        return (self.code, self.text, self.final) == (other.code, other.text, other.final)

    def __hash__(self) -> int:
        return hash((self.code, self.text, self.final))


ACCEPT = Response(250)
"""Acceptance without text: the backend's words, or the usual ones, are shown."""


class CheckFailed(Exception):
    """Raised by a hook that could not make its check: a scanner that is not there, a list that gives no answer.

    The place of the plugin in its list decides what comes of it: `response`, an error, or that the mail passes as if
    the plugin had no opinion. `why`: for the log; empty: nothing is logged but the reply.
    """

    def __init__(self, response: Response, why: str = "") -> None:
        if not response.refuses:
            raise ValueError(f"a check that has failed is answered with an error, not {response!r}")
        super().__init__(why or response.text)
        self.response = response
        self.why = why


@record(frozen=True)
class Place:
    """What the list of plugins says of a plugin besides its name: ``clamav,deadline=20,failure=pass``.

    `deadline`: seconds that one hook may take in all its operations, None: `mailfront_io.calling.HOOK_SECONDS`;
    `passes`: a hook that fails (it raises, hangs, or answers nonsense) lets the mail pass; otherwise it defers it.
    """

    deadline: float | None = None
    passes: bool = False


class Kind(Enum):
    """The type of a setting."""

    TEXT = "text"
    NUMBER = "number"
    """A decimal number; in the compat profile anything else counts as unset."""
    FLAG = "flag"
    """Set to anything, even nothing, it is on."""
    LIST = "colon-separated list"
    DIRECTORY = "directory"


@record(frozen=True)
class Setting:
    """A setting of a plugin, backend or front end, declared once.

    `variable`: the environment variable; `doc`: one line for people; `default`: as text, for people;
    `required`: without it the plugin cannot work; `unless`: or without this variable in its place.
    """

    variable: str
    kind: Kind
    doc: str
    default: str = ""
    required: bool = False
    unless: str = ""


@record(frozen=True)
class Command:
    """An SMTP command of a plugin's own, which overrides a built-in one of the same name.

    `handler` takes the argument (an empty string when there is none) and answers with a `Response`.
    `parameter`: ``required``, ``forbidden`` or ``optional``.
    """

    verb: str
    handler: "Callable[[str], Response | Coroutine[Any, Any, Response]]"
    parameter: str = "optional"

    def __post_init__(self) -> None:
        if not (self.verb.isascii() and self.verb.isalnum()):
            raise ValueError(f"a command's verb is ASCII letters and digits, not {self.verb!r}")
        if self.parameter not in ("required", "forbidden", "optional"):
            raise ValueError(f"a command's parameter is required, forbidden or optional, not {self.parameter!r}")


@record(frozen=True)
class Parameter:
    """An ESMTP parameter of a plugin's own: it is in ``path.options.others`` then.

    `verb`: ``MAIL`` or ``RCPT``. `keyword`: its name. `check`: whether a value is good (None: there was no ``=``).
    `capability`: the keyword of a line of the EHLO list without which it is refused; see ``helo``.
    """

    verb: str
    keyword: str
    check: Callable[[str | None], bool] | None = None
    capability: str = ""

    def __post_init__(self) -> None:
        if self.verb not in ("MAIL", "RCPT") or not _KEYWORD.match(self.keyword):
            raise ValueError(
                f"a parameter is of MAIL or RCPT, and its keyword letters, digits and hyphens, not {self.verb!r} and "
                f"{self.keyword!r}"
            )


Hook = Callable[..., Any]


class Lines(Enum):
    """How lines end in the messages that a backend gets."""

    LF = "lf"
    """As in files."""
    CRLF = "crlf"
    """As on the wire. What is no line (a BINARYMIME message) is left alone."""


class Hooks:
    """What plugins and backends have in common. The hooks below are all optional: they are called only
    where a subclass defines them, and looked up once, when the object has been made.

    ====================================  ===============================================================
    ``connect()``                         the connection is there; an error takes the greeting's place
    ``helo(host, capabilities)``          HELO/EHLO/LHLO; may add to the list of capability lines
    ``auth(request)``                     AUTH: a `Request` other than `FindKeys`; the first response decides,
                                          otherwise the session's store
    ``sender(path)``                      MAIL; may change ``path.address``
    ``recipient(path)``                   RCPT; may change ``path.address``
    ``data_start(spool)``                 DATA; may call ``session.add_lines()``; spool is None without one
    ``data_block(data)``                  a slice of the message (LF line ends)
    ``data_end()``                        backends only: that was the last slice, and plugins are asked next
    ``message_end(spool)``                the message is complete; may rewrite the spool
    ``reset()``                           the transaction is dropped
    ``disconnect()``                      the session ends
    ====================================  ===============================================================
    """

    name: ClassVar[str] = ""
    settings: ClassVar[Sequence[Setting]] = ()
    spools: ClassVar[bool] = False
    """Whether the whole message must be kept until ``message_end``."""
    one_shot: ClassVar[bool] = False
    """Whether this works only in a program that serves one connection, started by tcpserver and its like."""
    place: ClassVar[Place] = Place()
    """How it is listed."""
    shared: ClassVar[Any] = None
    """What ``configure`` has returned: the part that all connections of a service share."""
    _absent: ClassVar[None] = None  # what `mailfront_io.calling.Plan` finds for a hook that is not there

    @classmethod
    def configure(cls, environment: Mapping[str, str], log: Callable[[str], None]) -> Any:
        """Called once for each service, before its first connection and before a process is forked for one: what it
        returns is in ``shared`` of every object. Raise `ValueError`, one sentence with the remedy, where the
        settings in `environment` cannot be used. Open neither sockets nor threads here."""
        return None

    def __init__(self, session: Session) -> None:
        self.session = session

    def commands(self) -> Iterable[Command]:
        """The SMTP commands offered now; asked at the start, at HELO, and after TLS start and AUTH."""
        return ()

    def parameters(self) -> Iterable[Parameter]:
        """The ESMTP parameters taken now; asked when `commands` is."""
        return ()

    def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms offered now; asked at the start, at HELO, and after TLS start and AUTH."""
        return ()


class Plugin(Hooks):
    """Base class of plugins, which decide."""

    resting: tuple[str, ...] = ()
    """The hooks that are not called for now; see `rest`."""

    def rest(self, *names: str) -> None:
        """Call this in ``connect`` or ``data_start``: as things are, these hooks of this plugin would do nothing. From
        the second message of a connection on they are left out, until one of those two calls this again, with other
        names or with none. (With ``$MSG_DEBUG``, which logs all calls, all are called.)"""
        if names != self.resting:
            self.resting = names
            self.session.hooks_rest = True


class Backend(Hooks):
    """Base class of backends, which take the message.

    ``message_end`` answers once the message is durable, with one `Response`, or with a list of one for
    each recipient of ``session.envelope``.
    """

    lines: ClassVar[Lines] = Lines.LF
    """The form in which this backend and the spool get the message."""

    extensions: frozenset[str] = frozenset()
    """What this backend keeps of what SMTP extensions promise, as capability keywords: ``DSN`` (it sends the reports
    of RFC 3461, or hands ``path.options`` on), ``REQUIRETLS`` (it keeps RFC 8689), ``BINARYMIME`` (messages without
    lines, RFC 3030; needs `Lines.CRLF`). They are offered to clients then."""
