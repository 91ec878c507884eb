"""Harness: SASL exchanges, both roles.

The first byte chooses the mechanism, the second what is done with the rest:

* lines from a client to our server, as they are or put into base64;
* lines from a server to our client, in the same way;
* a login of our client at our server, of which single bytes are changed on their way;
* the stored form of SCRAM keys.

What must hold: nothing escapes; every exchange ends; what is asked of the application holds no control byte; and no
login succeeds from which the other side's password is missing, or in which anything of SCRAM was changed.
"""

from collections.abc import Callable

from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl import (
    AnonymousClient,
    Authorize,
    Challenge,
    ClientExchange,
    ClientMechanism,
    CramMD5Client,
    ExternalClient,
    Failed,
    FindKeys,
    LoginClient,
    OAuthBearerClient,
    PlainClient,
    Request,
    ScramClient,
    ScramKeys,
    ServerExchange,
    ServerOptions,
    Step,
    VerifyPassword,
    VerifyResponse,
    VerifyToken,
    XOAuth2Client,
    derive_keys,
)
from mailfront_proto.sasl.base64_line import MAX_DECODED, decode_base64, encode_base64
from mailfront_proto.sasl.options import NEEDED
from mailfront_proto.secret import Secret

NAMES = tuple(NEEDED)
PASSWORD = Secret(b"pencil")
BINDING = ("tls-exporter", b"binding")
KEYS = {name: derive_keys(PASSWORD, b"sixteen octets..", 1, name) for name in ("sha1", "sha256")}
MAX_INPUT = 2048
MAX_STEPS = 5


def options(free: bool) -> ServerOptions:
    """Everything is offered. `free`: with any authorization identity."""
    return ServerOptions(
        NAMES,
        nonce_source=lambda size: b"s" * size,
        salt_secret=Secret(b"0123456789abcdef"),
        iterations=1,
        channel_bindings=dict([BINDING]),
        challenge_source=lambda: b"<1@x>",
        external_identity="user",
        allows_authorization_identity=free,
    )


def new_client(name: str) -> ClientMechanism:
    """A client that knows the password."""
    if name.startswith("SCRAM"):
        binding = BINDING if name.endswith("PLUS") else None
        return ScramClient(
            name, "user", PASSWORD, b"c" * 18, channel_binding=binding, min_iterations=1, max_iterations=9
        )
    clients: dict[str, Callable[[], ClientMechanism]] = {
        "PLAIN": lambda: PlainClient("user", PASSWORD),
        "LOGIN": lambda: LoginClient("user", PASSWORD),
        "CRAM-MD5": lambda: CramMD5Client("user", PASSWORD),
        "EXTERNAL": lambda: ExternalClient("user"),
        "OAUTHBEARER": lambda: OAuthBearerClient(PASSWORD, "user", "mx.example.org", 25),
        "XOAUTH2": lambda: XOAuth2Client("user", PASSWORD),
        "ANONYMOUS": lambda: AnonymousClient("user@example.org"),
    }
    return clients[name]()


def knows(request: Request) -> bool:
    """Whether the client has shown that it knows the password, as the application can tell."""
    if isinstance(request, VerifyPassword):
        return request.password == PASSWORD and request.username == "user"
    if isinstance(request, VerifyResponse):
        return request.matches(PASSWORD) and request.username == "user"
    if isinstance(request, VerifyToken):
        return request.token == PASSWORD
    return isinstance(request, Authorize)


def look_at(request: Request) -> None:
    """What must hold for every request."""
    texts = [request.mechanism, request.username, getattr(request, "authorization_identity", "")]
    texts += [getattr(request, "trace", ""), *getattr(request, "properties", {}).values()]
    for text in texts:
        assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in text), request
        text.encode("utf-8")
    assert request.mechanism in NAMES
    if isinstance(request, VerifyPassword):
        assert request.username and request.password.reveal() and b"\0" not in request.password.reveal()


def from_client(name: str, lines: list[bytes], free: bool, initial: bool) -> None:
    """Lines of a client, whatever they are."""
    exchange = ServerExchange(options(free))
    step: Step = exchange.start(name.encode(), lines.pop(0) if initial and lines else None)
    for number, line in enumerate([*lines, b"*", b"*"]):
        assert number < MAX_STEPS or isinstance(step, Challenge) or not lines
        if isinstance(step, FindKeys):
            look_at(step)
            step = exchange.supply_keys(KEYS[step.hash_name] if step.username == "user" else None)
        if isinstance(step, Request):
            look_at(step)
            assert not name.startswith("SCRAM"), "a login without the password"
            challenge = exchange.refused()
            if challenge is None:
                return
            step = challenge
        if isinstance(step, Failed):
            assert step.cause.text and step.cause.words
            return
        step = exchange.oversized() if len(line) > 12_286 else exchange.respond(line)
    assert isinstance(step, Failed)


def from_server(name: str, lines: list[bytes], room: int) -> None:
    """Lines of a server, whatever they are."""
    exchange = ClientExchange(new_client(name))
    initial = exchange.initial_response(room)
    assert initial is None or (len(initial) <= room and decode_base64(initial) is not None)
    for line in lines:
        answer = exchange.respond(line)
        assert name.startswith("SCRAM") is False or exchange.objection(), "a server that has proven nothing"
        if answer is None:
            return
        assert answer == b"*" if exchange.cancelled else decode_base64(answer) is not None
        assert not exchange.cancelled or exchange.objection()


def changed_on_the_way(name: str, changes: bytes) -> None:
    """A login, in which three bytes of `changes` each change one: in which message, where, and how."""
    wanted = [tuple(changes[at : at + 3]) for at in range(0, len(changes) - 2, 3)][:8]
    count = 0
    touched = False

    def change(message: bytes) -> bytes:
        nonlocal count, touched
        changed = bytearray(message)
        for which, where, how in wanted:
            if which % 5 == count and changed:
                changed[where % len(changed)] ^= how
        count += 1
        touched = touched or not same(message, bytes(changed))
        return bytes(changed)

    client, server = ClientExchange(new_client(name)), ServerExchange(options(False))
    initial = client.initial_response()
    sent = None if initial is None else encode_base64(change(decode_base64(initial) or b"")) or b"="
    step: Step = server.start(name.encode(), sent)
    for _ in range(MAX_STEPS):
        if isinstance(step, FindKeys):
            step = server.supply_keys(KEYS[step.hash_name] if step.username == "user" else None)
        if isinstance(step, Request):
            look_at(step)
            believed = knows(step) and not client.objection()
            assert not (believed and touched and name.startswith("SCRAM")), "changed, and nobody has seen it"
            assert believed or touched, "not changed, and refused"
            return
        if isinstance(step, Failed):
            assert touched
            return
        answer = client.respond(encode_base64(change(step.data)))
        assert answer is not None
        if answer == b"*":
            assert touched
            return
        step = server.respond(encode_base64(change(decode_base64(answer) or b"")))
    raise AssertionError("no end")


def same(message: bytes, changed: bytes) -> bool:
    """Whether two messages are the same but for spare bits at the end of the base64 of a proof or signature."""
    for mark in (b",p=", b"v="):
        head, found, tail = message.rpartition(mark)
        other_head, other_found, other_tail = changed.rpartition(mark)
        if found and other_found and head == other_head:
            decoded = decode_base64(tail)
            return decoded is not None and decoded == decode_base64(other_tail)
    return message == changed


def stored(data: bytes) -> None:
    """The stored form, read, written and read again."""
    try:
        keys = ScramKeys.decode(Secret(data))
    except LocalProtocolError:
        return
    assert ScramKeys.decode(keys.encode()) == keys


def check(data: bytes) -> None:
    """Choose and play."""
    if len(data) < 3 or len(data) > MAX_INPUT:
        return
    name, mode, rest = NAMES[data[0] % len(NAMES)], data[1] & 3, data[2:]
    lines = rest.split(b"\n")[:12]
    if data[1] & 4:
        lines = [encode_base64(line) for line in lines if len(line) <= MAX_DECODED]
    if mode == 0:
        from_client(name, lines, bool(data[1] & 8), bool(data[1] & 16))
    elif mode == 1:
        from_server(name, lines, 0 if data[1] & 8 else 400)
    elif mode == 2:
        changed_on_the_way(name, rest)
    else:
        stored(rest)
