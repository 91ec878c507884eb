"""SCRAM-SHA-1 and SCRAM-SHA-256 (RFC 5802, RFC 7677), with and without channel binding (-PLUS).

Client and server prove to each other that they know the password (or, the server, keys made from it), and neither says
it. Four messages: the client's name and nonce, the server's nonce, salt and iteration count, the client's proof, the
server's signature. The last one goes out as a challenge, which the client answers with an empty response, for neither
SMTP, POP3 nor IMAP has additional data with success.
"""

from collections.abc import Mapping
from typing import Final

from mailfront_proto.errors import LocalProtocolError, RemoteProtocolError
from mailfront_proto.sasl.base64_line import encode_base64
from mailfront_proto.sasl.mechanism import (
    Cause,
    Challenge,
    ClientMechanism,
    Failed,
    ServerMechanism,
    Step,
    decode_identity,
)
from mailfront_proto.sasl.requests import Authorize, FindKeys
from mailfront_proto.sasl.saslprep import saslprep
from mailfront_proto.sasl.scram_keys import (
    HASHES,
    SALT_SIZE,
    ScramKeys,
    digest,
    keyed,
    keys_of,
    prepared_password,
    salted_password,
)
from mailfront_proto.sasl.scram_messages import (
    MAX_NONCE,
    ClientFinal,
    ClientFirst,
    GS2Header,
    ServerFinal,
    ServerFirst,
    escape_name,
)
from mailfront_proto.secret import Secret

MIN_ITERATIONS: Final = 4096
"""What RFC 7677 section 4 asks of a server at least. With fewer, who overhears a login finds the password sooner."""

MAX_ITERATIONS: Final = 1_000_000
"""PBKDF2 takes half a second for so many. More than is recommended anywhere (600,000), and no server should be able to
make a client compute for minutes."""

MAX_NAME: Final = 1024
"""Octets of a name that a client sends: more would cost more to prepare than any name is worth."""


class ScramServer(ServerMechanism):
    """The server role: `FindKeys`, then, for a client that has proven that it knows the password, `Authorize`.

    `name`: the mechanism's. `nonce`: ours, printable and without comma. `salt_secret`, `iterations`,
    `channel_bindings`: as in `ServerOptions`. `offers_plus`: the same mechanism is offered with -PLUS, so that a client
    that could bind, and has not seen that, was lied to.
    """

    def __init__(
        self,
        name: str,
        nonce: bytes,
        salt_secret: Secret,
        iterations: int,
        channel_bindings: Mapping[str, bytes],
        offers_plus: bool = False,
    ) -> None:
        self._name = name
        self._hash_name = HASHES[name.removesuffix("-PLUS")]
        self._plus = name.endswith("-PLUS")
        self._nonce = nonce
        self._salt_secret = salt_secret
        self._iterations = iterations
        self._channel_bindings = channel_bindings
        self._offers_plus = offers_plus
        self._username = self._authorization_identity = ""
        self._channel_binding = b""  # what the client must repeat, the gs2 header in front
        self._client_first = self._server_first = b""
        self._keys: ScramKeys | None = None
        self._proven = False

    def respond(self, response: bytes) -> Step:
        """The client's first message, its final one, or the empty answer to our signature."""
        if self._proven:
            if response:
                return Failed(Cause.MALFORMED)
            return Authorize(self._name, self._name, self._username, self._authorization_identity)
        return self._first(response) if self._keys is None else self._final(response)

    def supply_keys(self, keys: ScramKeys | None) -> Challenge:
        """Go on with `keys`, or with made-up ones."""
        if keys is not None and keys.hash_name != self._hash_name:
            raise LocalProtocolError(f"supply_keys(): {self._name} needs keys of {self._hash_name}")
        self._keys = keys = keys or self._made_up_keys()
        self._server_first = b"r=%s,s=%s,i=%d" % (self._nonce, encode_base64(keys.salt), keys.iterations)
        return Challenge(self._server_first)

    def _first(self, response: bytes) -> Step:
        header = GS2Header.parse(response)
        if header is None or header.bound is not self._plus:
            return Failed(Cause.MALFORMED)
        message = ClientFirst.parse(response[len(header.raw) :])
        if message is None:
            return Failed(Cause.MALFORMED)
        if header.binding == "y" and self._offers_plus:  # RFC 5802 section 6: somebody has taken -PLUS off our list
            return Failed(Cause.NOT_PROVEN)
        if self._plus and header.binding not in self._channel_bindings:
            return Failed(Cause.NOT_PROVEN)
        username, authorization_identity = _prepared(message.username), _prepared(header.authorization_identity)
        if not username or authorization_identity is None:
            return Failed(Cause.MALFORMED)
        self._username, self._authorization_identity = username, authorization_identity
        self._channel_binding = header.raw
        if self._plus:
            self._channel_binding += self._channel_bindings[header.binding]
        self._client_first = message.raw
        self._nonce = message.nonce + self._nonce
        return FindKeys(self._name, self._name, username, self._hash_name, authorization_identity)

    def _final(self, response: bytes) -> Step:
        keys = self._keys
        assert keys is not None
        message = ClientFinal.parse(response)
        if message is None:
            return Failed(Cause.MALFORMED)
        signed = b"%s,%s,%s" % (self._client_first, self._server_first, message.without_proof)
        signature = keyed(keys.stored_key.reveal(), signed, self._hash_name)
        proof = message.proof.reveal()
        proven = (
            len(proof) == len(signature)
            and Secret(digest(_xor(proof, signature), self._hash_name)) == keys.stored_key
        )
        # All is compared, whatever comes first: a stranger learns nothing from the time that it takes.
        same_nonce = Secret(message.nonce) == Secret(self._nonce)
        same_binding = Secret(message.channel_binding) == Secret(self._channel_binding)
        if not (proven and same_nonce and same_binding):
            return Failed(Cause.NOT_PROVEN)
        self._proven = True
        return Challenge(b"v=" + encode_base64(keyed(keys.server_key.reveal(), signed, self._hash_name)))

    def _made_up_keys(self) -> ScramKeys:
        """Those of a user who does not exist: the same salt each time, and a key that no password has."""

        def chance(what: bytes) -> bytes:
            name = b"%s %s %s" % (what, self._hash_name.encode(), self._username.encode())
            return keyed(self._salt_secret.reveal(), name, self._hash_name)

        key = Secret(chance(b"key"))
        return ScramKeys(self._hash_name, chance(b"salt")[:SALT_SIZE], self._iterations, key, key)


class ScramClient(ClientMechanism):
    """The client role.

    `name`: ``SCRAM-SHA-256``, ``SCRAM-SHA-1`` or one of them with ``-PLUS``. `nonce`: 12 octets of chance or more,
    never used before: ``secrets.token_bytes(18)``. `channel_binding`: the type and the data of this connection's
    channel binding; -PLUS needs it. **Give it without -PLUS, too, if you have it and the server does not offer -PLUS**:
    then the server can tell whether somebody took that off its list (RFC 5802 section 6).

    Raises `LocalProtocolError` for a name or password that SASLprep prohibits. Computes PBKDF2 in `respond`, which
    takes tens of milliseconds at usual iteration counts; those out of `min_iterations` to `max_iterations` are refused.
    """

    def __init__(
        self,
        name: str,
        username: str,
        password: Secret,
        nonce: bytes,
        *,
        authorization_identity: str = "",
        channel_binding: tuple[str, bytes] | None = None,
        min_iterations: int = MIN_ITERATIONS,
        max_iterations: int = MAX_ITERATIONS,
    ) -> None:
        self.name = name
        self._hash_name = HASHES.get(name.removesuffix("-PLUS"), "")
        prepared = saslprep(username, stored=False)
        authzid = saslprep(authorization_identity, stored=False)
        if not self._hash_name:
            raise LocalProtocolError(f"{name} is no SCRAM mechanism; there are {', '.join(HASHES)}, also with -PLUS")
        if not prepared or authzid is None:
            raise LocalProtocolError("SCRAM takes names that SASLprep (RFC 4013) allows, the user's not empty")
        if not 12 <= len(nonce) <= MAX_NONCE // 4:
            raise LocalProtocolError(f"ScramClient: the nonce has 12 to {MAX_NONCE // 4} octets of chance")
        prepared_password(password)
        plus = name.endswith("-PLUS")
        if plus and channel_binding is None:
            raise LocalProtocolError(f"{name} needs channel_binding")
        flag = f"p={channel_binding[0]}" if plus and channel_binding else "y" if channel_binding else "n"
        header = b"%s,%s," % (flag.encode("ascii"), b"a=" + escape_name(authzid) if authzid else b"")
        self._channel_binding = header + (channel_binding[1] if plus and channel_binding else b"")
        self._password = password
        self._nonce = encode_base64(nonce)
        self._bare = b"n=%s,r=%s" % (escape_name(prepared), self._nonce)
        self._first = header + self._bare
        self._min_iterations, self._max_iterations = min_iterations, max_iterations
        self._server_signature: bytes | None = None
        self._verified = False

    def initial_response(self) -> bytes:
        """Name and nonce."""
        return self._first

    def respond(self, challenge: bytes) -> bytes:
        """The proof, or nothing once the server's signature is verified."""
        return self._final(challenge) if self._server_signature is None else self._verify(challenge)

    def objection(self) -> str:
        """A server that has not proven that it knows the password is not to be believed."""
        return "" if self._verified else "claims success before it has proven that it knows the password"

    def _final(self, challenge: bytes) -> bytes:
        message = ServerFirst.parse(challenge)
        if message is None:
            raise RemoteProtocolError(f"the server's first message of {self.name} does not follow its grammar")
        if not message.nonce.startswith(self._nonce) or message.nonce == self._nonce:
            raise RemoteProtocolError("the server's nonce does not begin with ours and go on")
        if not self._min_iterations <= message.iterations <= self._max_iterations:
            raise RemoteProtocolError(
                f"the server asks for {message.iterations} iterations: "
                f"not within {self._min_iterations} and {self._max_iterations}"
            )
        salted = salted_password(self._password, message.salt, message.iterations, self._hash_name)
        client_key, server_key = keys_of(salted, self._hash_name)
        without_proof = b"c=%s,r=%s" % (encode_base64(self._channel_binding), message.nonce)
        signed = b"%s,%s,%s" % (self._bare, message.raw, without_proof)
        self._server_signature = keyed(server_key, signed, self._hash_name)
        proof = _xor(client_key, keyed(digest(client_key, self._hash_name), signed, self._hash_name))
        return without_proof + b",p=" + encode_base64(proof)

    def _verify(self, challenge: bytes) -> bytes:
        message = ServerFinal.parse(challenge)
        if self._verified or message is None:
            raise RemoteProtocolError(f"the server's final message of {self.name} does not follow its grammar")
        if message.error:
            raise RemoteProtocolError(f"the server says {message.error[:80]!r}")
        assert self._server_signature is not None
        if message.verifier != Secret(self._server_signature):
            raise RemoteProtocolError("the server does not know the password: its signature is wrong")
        self._verified = True
        return b""


def _prepared(name: bytes) -> str | None:
    """A name as SASLprep makes it; None for one that is no UTF-8, holds control bytes, or is prohibited."""
    text = decode_identity(name) if len(name) <= MAX_NAME else None
    return None if text is None else saslprep(text, stored=False)


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
