"""Credential validation modules: programs, or servers on a local socket or a UDP port, that say if a login is good.

A list of modules is asked in turn until one knows: it accepts, refuses an account of its own, or cannot say now.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mailfront_io.auth.store import NOBODY, Asker, CredentialStore, Identity, StoreUnavailable
from mailfront_io.children import Spawn, SpawnFailed
from mailfront_io.ops import ConnectionLost, DeadlineExceeded
from mailfront_io.peers import Connect, Datagram, Exchange, Unreachable
from mailfront_io.session import parse_number
from mailfront_proto.cvm import MAX_PACKET, CVMRequest, CVMResponse, Fact, Verdict, split_account
from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.record import record
from mailfront_proto.secret import Secret

if TYPE_CHECKING:
    from mailfront_io.peers import Address

UDP_WAITS: Final = (2.0, 4.0, 8.0, 16.0)
"""Seconds to wait for an answer to each try."""

MIN_RANDOM_BYTES: Final = 8
"""By UDP anybody can send an answer with our server's address on it: with these, only who has seen the question can."""

_PREFIXES: Final = ("cvm-command:", "cvm-local:", "cvm-udp:")


@record(frozen=True)
class Module:
    """One module. `kind`: ``command``, ``local``, ``udp``; ``none`` for a name that names none (compat). `address`: a
    program, a socket's path, or host and port."""

    kind: str
    address: "Address"

    def __str__(self) -> str:
        place = self.address if isinstance(self.address, str) else f"{self.address[0]}:{self.address[1]}"
        return f"cvm-{self.kind}:{place}"


def parse_modules(text: str, compat: bool = False) -> list[Module]:
    """The modules of a comma list. Raises `ValueError`, in words, for a name that names none; in the compat profile
    such a one is a module that cannot be asked, a comma may end the list, and an empty list is one without modules."""
    if not compat:
        return [_parse_module(name) for name in text.split(",")]
    modules = []
    for name in text.removesuffix(",").split(",") if text else ():
        try:
            modules.append(_parse_module(name))
        except ValueError:
            modules.append(Module("none", name))
    return modules


def _parse_module(name: str) -> Module:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    rest = name.removeprefix(prefix)
    if not rest or "\0" in rest:
        raise ValueError(f"{name!r} names no module: write cvm-command:PROGRAM, cvm-local:PATH, cvm-udp:HOST:PORT")
    if prefix != "cvm-udp:":
        return Module("local" if prefix == "cvm-local:" else "command", rest)
    host, _, port = rest.rpartition(":")
    number = parse_number(port)
    if not host or number is None or not 1 <= number <= 65535:
        raise ValueError(f"{name!r} names no module: write cvm-udp:HOST:PORT")
    return Module("udp", (host.strip("[]"), number))


async def ask_modules(modules: Sequence[Module], request: CVMRequest, asker: Asker) -> CVMResponse | None:
    """The answer of the first module that knows, or of the last one; `request` without random bytes. None: the account
    is none of theirs. Where there are no modules, and for what no packet can carry (a value of more than 255 octets is
    never cut or wrapped), it is a refusal.

    Raises `StoreUnavailable`, naming the module.
    """
    if not modules:
        return CVMResponse(100)
    packet_request = request
    compat = asker.environment.get("MAILFRONT_PROFILE") == "compat"
    if any(module.kind == "udp" for module in modules):
        wanted = parse_number(asker.environment.get("CVM_RANDOM_BYTES")) or 0
        packet_request = _with_random_bytes(request, os.urandom(min(max(wanted, MIN_RANDOM_BYTES), 64)))
    try:
        packet = packet_request.encode()
    except LocalProtocolError:
        return CVMResponse(100)
    for module in modules:
        try:
            response = await _ASK[module.kind](module, packet_request, packet, asker)
            verdict = response.verdict
            if verdict is Verdict.ACCEPTED and compat:
                _check_facts(response)
        except (RemoteProtocolError, Unreachable, ConnectionLost, SpawnFailed) as error:
            raise StoreUnavailable(f"{module}: {error}") from error
        except DeadlineExceeded as error:
            raise StoreUnavailable(f"{module}: no answer in time") from error
        if verdict is Verdict.UNAVAILABLE:
            raise StoreUnavailable(f"{module}: temporary error {response.code}")
        if response.code == 0 or response.in_scope:
            return response
    return None if verdict is Verdict.OUT_OF_SCOPE else response


class CVMStore(CredentialStore):
    """Asks modules. `passwords`, `responses`, `lookups`: which ones, comma lists of names, for passwords, for CRAM-MD5
    and for users without a password; None: none. `login_only`: passwords come by LOGIN and not by PLAIN. `compat`: see
    `parse_modules`.

    From the asker's settings: ``$CVM_ACCOUNT_SPLIT_CHARS``, ``$CVM_LOOKUP_SECRET``, ``$CVM_RANDOM_BYTES``. Raises
    `ValueError` for a name that names nothing.
    """

    def __init__(
        self,
        passwords: str | None = None,
        responses: str | None = None,
        lookups: str | None = None,
        *,
        login_only: bool = False,
        compat: bool = False,
    ) -> None:
        self._passwords = parse_modules(passwords, compat) if passwords is not None else None
        self._responses = parse_modules(responses, compat) if responses is not None else None
        self._lookups = parse_modules(lookups, compat) if lookups is not None else None
        names = (("LOGIN",) if login_only else ("LOGIN", "PLAIN")) if passwords is not None else ()
        names = (*names, "CRAM-MD5") if responses is not None else names
        self.mechanisms = (*names, "EXTERNAL", "ANONYMOUS") if lookups is not None else names

    @classmethod
    def from_settings(cls, getenv: Callable[[str], str | None], compat: bool) -> "CVMStore | None":
        """Of the modules that ``$CVM_SASL_PLAIN``, or ``$CVM_SASL_LOGIN`` where that is not set, and
        ``$CVM_SASL_CRAM_MD5`` name; None where none is set. (An empty one is not, but in the compat profile.) Raises
        `ValueError`."""

        def named(variable: str) -> str | None:
            value = getenv(variable)
            return value if value or compat else None

        passwords, responses = named("CVM_SASL_PLAIN"), named("CVM_SASL_CRAM_MD5")
        login_only = passwords is None
        if login_only:
            passwords = named("CVM_SASL_LOGIN")
        if passwords is responses is None:
            return None
        return cls(passwords, responses, login_only=login_only, compat=compat)

    async def verify_password(self, username: str, password: Secret, asker: Asker = NOBODY) -> Identity | None:
        """Asks with account, domain and password; an empty password is sent as empty."""
        account, domain = _split(username, asker)
        request = CVMRequest(account, domain, password, _shared_secret(asker))
        return await self._identify(self._passwords, request, asker)

    async def verify_response(
        self, username: str, challenge: bytes, digest: bytes, asker: Asker = NOBODY
    ) -> Identity | None:
        """Asks with challenge and digest."""
        account, domain = _split(username, asker)
        request = CVMRequest(
            account, domain, None, _shared_secret(asker), challenge, response=Secret(digest), response_type=b"CRAM-MD5"
        )
        return await self._identify(self._responses, request, asker)

    async def look_up(self, name: str, asker: Asker = NOBODY) -> Identity | None:
        """Asks with account and domain, and the secret that client and module share."""
        account, domain = _split(name, asker)
        return await self._identify(self._lookups, *lookup(account, domain, asker))

    async def _identify(self, modules: list[Module] | None, request: CVMRequest, asker: Asker) -> Identity | None:
        if modules is None:
            raise StoreUnavailable("no CVM module is configured for this")
        response = await ask_modules(modules, request, asker)
        if response is None or response.verdict is not Verdict.ACCEPTED:
            return None
        try:
            return identity_of(response, request)
        except RemoteProtocolError as error:
            raise StoreUnavailable(f"the module's facts: {error}") from error


def lookup(account: bytes, domain: bytes, asker: Asker) -> tuple[CVMRequest, Asker]:
    """The request that asks for an account without a password, and who asks it. Where there is no secret to share, the
    variable is there and empty: so programs know that they are to look up and not to authenticate."""
    environment = asker.environment
    secret, other = environment.get("CVM_LOOKUP_SECRET"), environment.get("LOOKUP_SECRET")
    if secret is None and other is None:
        empty = {"CVM_LOOKUP_SECRET": ""}
        programs = {**asker.program_environment, **empty}
        asker = Asker(asker.deadline, {**environment, **empty}, asker.default_domain, programs)
        secret = ""
    elif secret is None:
        secret = other or None
    return CVMRequest(account, domain, secret=None if secret is None else Secret(secret.encode())), asker


def identity_of(response: CVMResponse, request: CVMRequest) -> Identity:
    """The facts. Raises `RemoteProtocolError` for numbers that are none."""

    def text(fact: Fact) -> str:
        return response.text(fact) or ""

    return Identity(
        text(Fact.USERNAME) or request.account.decode("utf-8", "surrogateescape"),
        text(Fact.DOMAIN),
        text(Fact.MAILBOX),
        response.number(Fact.USER_ID),
        response.number(Fact.GROUP_ID),
        text(Fact.REAL_NAME),
        text(Fact.DIRECTORY),
        text(Fact.SHELL),
        text(Fact.GROUP_NAME),
        tuple(response.numbers(Fact.SUPPLEMENTARY_GROUP_ID)),
        text(Fact.SYSTEM_USERNAME),
        frozenset(name for fact, names in _VARIABLES.items() if response.text(fact) == "" for name in names),
    )


def _check_facts(response: CVMResponse) -> None:
    """Raise `RemoteProtocolError` where a fact is missing without which the original takes no success."""
    for fact in (Fact.USERNAME, Fact.DIRECTORY):
        if response.text(fact) is None:
            raise RemoteProtocolError(f"the module does not tell fact {fact}")
    for fact in (Fact.USER_ID, Fact.GROUP_ID):
        if response.number(fact) is None:
            raise RemoteProtocolError(f"the module does not tell fact {fact}")

_VARIABLES: Final = {
    Fact.REAL_NAME: ("NAME",),
    Fact.DIRECTORY: ("HOME",),
    Fact.SHELL: ("SHELL",),
    Fact.GROUP_NAME: ("GROUP",),
    Fact.DOMAIN: ("DOMAIN",),
    Fact.MAILBOX: ("MAIL", "MAILBOX", "MAILDIR"),
}


# -- one module ------------------------------------------------------------------------------------------------


async def _ask_command(module: Module, request: CVMRequest, packet: bytes, asker: Asker) -> CVMResponse:
    """The request on its standard input, the answer on its standard output, and its exit status."""
    assert isinstance(module.address, str)
    deadline = asker.deadline
    with await Spawn([module.address], asker.program_environment, writes=[0], reads=[1], deadline=deadline) as child:
        stdin, stdout = child.pipes[0], child.pipes[1]
        done = await Exchange({stdin: packet}, {stdout: MAX_PACKET + 1}, deadline)
        status = await child.wait(deadline)
    return CVMResponse.of_command(done.received[stdout], status, request)


async def _ask_local(module: Module, request: CVMRequest, packet: bytes, asker: Asker) -> CVMResponse:
    """Written, ended, and read to the end."""
    with await Connect([module.address], asker.deadline) as peer:
        done = await Exchange({peer: packet}, {peer: MAX_PACKET + 1}, asker.deadline)
    return CVMResponse.parse(done.received[peer], request)


async def _ask_udp(module: Module, request: CVMRequest, packet: bytes, asker: Asker) -> CVMResponse:
    """Only what comes from the module's address and repeats the random bytes is its answer."""

    def take(datagram: bytes) -> CVMResponse | None:
        try:
            return CVMResponse.parse(datagram, request)
        except RemoteProtocolError:
            return None

    return await Datagram(module.address, packet, take, asker.deadline, UDP_WAITS)


async def _ask_nobody(module: Module, request: CVMRequest, packet: bytes, asker: Asker) -> CVMResponse:
    """The name names no module."""
    raise Unreachable("such a module cannot be asked")


_ASK: Final = {"command": _ask_command, "local": _ask_local, "udp": _ask_udp, "none": _ask_nobody}


def _split(name: str, asker: Asker) -> tuple[bytes, bytes]:
    return split_account(name, asker.environment.get("CVM_ACCOUNT_SPLIT_CHARS", "@"), asker.default_domain)


def _shared_secret(asker: Asker) -> Secret | None:
    secret = asker.environment.get("CVM_LOOKUP_SECRET")
    return Secret(secret.encode()) if secret is not None else None


def _with_random_bytes(request: CVMRequest, random_bytes: bytes) -> CVMRequest:
    return CVMRequest(
        request.account,
        request.domain,
        request.password,
        request.secret,
        request.challenge,
        request.response,
        request.response_type,
        random_bytes,
    )
