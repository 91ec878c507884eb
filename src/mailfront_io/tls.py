"""TLS settings: from the ``$TLS_*`` variables to an `ssl.SSLContext`, and the names for the log.

`ssl` is imported only when TLS is configured: a one-shot program without it must start fast.
"""


import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mailfront_io.ops import TLSFacts
from mailfront_io.plugin import Kind, Setting

if TYPE_CHECKING:
    import ssl

SETTINGS = (
    Setting("TLS_CERTFILE", Kind.TEXT, "PEM file with the certificate chain; unset: no TLS"),
    Setting("TLS_KEYFILE", Kind.TEXT, "PEM file with the private key", "the file of TLS_CERTFILE"),
    Setting(
        "TLS_SNI_DIRECTORY",
        Kind.DIRECTORY,
        "files NAME.pem, chain and key, for clients that ask for the host NAME; *.example.org.pem for one more label",
        "one certificate for all",
    ),
    Setting(
        "TLS_CLIENT_CA",
        Kind.TEXT,
        "PEM file with the authorities that certify users: a client may show its certificate, and log in by EXTERNAL; "
        "one that shows another is turned away",
        "certificates are not asked for",
    ),
    Setting("TLS_IMMEDIATE", Kind.FLAG, "the handshake comes first (SMTPS); otherwise STARTTLS is offered"),
    Setting(
        "TLS_PRIORITY",
        Kind.TEXT,
        "an OpenSSL cipher string for TLS 1.2, or a profile: modern (TLS 1.3 only), intermediate",
        "intermediate",
    ),
    Setting("TLS_DH_PARAMS", Kind.TEXT, "PEM file with Diffie-Hellman parameters; elliptic curves need none"),
    Setting("TLS_COMPAT", Kind.FLAG, "also take what old clients need: TLS 1.2 with CBC ciphers"),
)

# Forward secrecy and AEAD only, as the "intermediate" recommendation of server administrators' guides has
# it; with TLS_COMPAT also CBC for clients of around 2010.
_INTERMEDIATE = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!eNULL"
_COMPATIBLE = _INTERMEDIATE + ":ECDHE+AES:DHE+AES"


class TLSSettingError(Exception):
    """A setting that cannot be used. `log_line` is the original's line for it."""

    def __init__(self, message: str, log_line: str) -> None:
        super().__init__(message)
        self.log_line = log_line


class _EncryptedKey(Exception):
    """OpenSSL asks for a pass phrase."""


def _no_password() -> str:
    raise _EncryptedKey


_CERTIFICATES: "WeakKeyDictionary[ssl.SSLContext, bytes]" = WeakKeyDictionary()
"""The certificates (DER) of the contexts that were made here: of what OpenSSL has loaded it tells nothing."""


_NAMED: "WeakKeyDictionary[ssl.SSLContext, dict[str, ssl.SSLContext]]" = WeakKeyDictionary()
"""The contexts of ``$TLS_SNI_DIRECTORY``, by the context that they belong to and host name."""


def server_context(getenv: Callable[[str], str | None]) -> "ssl.SSLContext | None":
    """The context for a server; None when ``$TLS_CERTFILE`` is unset. TLS 1.2 at least, no compression, no
    renegotiation. Raises `TLSSettingError` with the variable, the file and the remedy."""
    certfile = getenv("TLS_CERTFILE")
    if not certfile:
        return None
    context = _context(certfile, getenv("TLS_KEYFILE") or certfile, getenv)
    directory = getenv("TLS_SNI_DIRECTORY")
    if directory:
        _add_names(context, directory, getenv)
    return context


def _context(certfile: str, keyfile: str, getenv: Callable[[str], str | None]) -> "ssl.SSLContext":
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
    except _EncryptedKey as error:
        raise TLSSettingError(
            f"$TLS_KEYFILE: the key in {keyfile} is encrypted: give one without a pass phrase",
            "TLS init failed: Error while reading file.",
        ) from error
    except FileNotFoundError as error:
        missing = "TLS_CERTFILE" if not _exists(certfile) else "TLS_KEYFILE"
        raise TLSSettingError(
            f"${missing}: {certfile if missing == 'TLS_CERTFILE' else keyfile} does not exist: "
            "name a PEM file",
            "TLS init failed: Error while reading file.",
        ) from error
    except PermissionError as error:
        raise TLSSettingError(
            f"$TLS_CERTFILE, $TLS_KEYFILE: {certfile} or {keyfile} cannot be read by this user: "
            "change its mode or owner",
            "TLS init failed: Error while reading file.",
        ) from error
    except (ssl.SSLError, OSError) as error:
        raise TLSSettingError(
            f"$TLS_CERTFILE, $TLS_KEYFILE: {certfile} and {keyfile} hold no certificate and key that belong "
            f"together ({error.strerror or error}): give a PEM certificate chain and its unencrypted key",
            "TLS init failed: Error in the certificate.",
        ) from error
    _CERTIFICATES[context] = _first_certificate(certfile)
    _set_priority(context, getenv("TLS_PRIORITY"), getenv("TLS_COMPAT") is not None)
    dh_params = getenv("TLS_DH_PARAMS")
    if dh_params:
        try:
            context.load_dh_params(dh_params)
        except FileNotFoundError as error:
            raise TLSSettingError(
                f"$TLS_DH_PARAMS: {dh_params} does not exist: name a PEM file or unset it",
                f"TLS error reading DH params: {error.strerror}",
            ) from error
        except (ssl.SSLError, OSError) as error:
            raise TLSSettingError(
                f"$TLS_DH_PARAMS: {dh_params} holds no Diffie-Hellman parameters in PEM: make them anew or "
                "unset it",
                f"TLS error parsing DH params: {error.strerror or error}",
            ) from error
    client_ca = getenv("TLS_CLIENT_CA")
    if client_ca:
        _ask_for_certificates(context, client_ca)
    return context


def _ask_for_certificates(context: "ssl.SSLContext", authorities: str) -> None:
    """Take certificates of clients that `authorities`, a file, have signed; and none that they have revoked, where the
    file has their lists, too. Clients without one are as welcome as before."""
    import ssl

    try:
        context.load_verify_locations(authorities)
    except (ssl.SSLError, OSError) as error:
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read ({error.strerror})"
        raise TLSSettingError(
            f"$TLS_CLIENT_CA: {authorities} {why}: name a PEM file with the authorities that certify users",
            "TLS init failed: Error while reading file.",
        ) from error
    held = context.cert_store_stats()
    if not held["x509"]:
        raise TLSSettingError(
            f"$TLS_CLIENT_CA: {authorities} holds no certificate, only lists of revoked ones: put the authorities that "
            "certify users into it, too",
            "TLS init failed: Error while reading file.",
        )
    context.verify_mode = ssl.CERT_OPTIONAL
    if held["crl"]:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN  # an authority between can be revoked as well


def certificate_user(certificate: Mapping[str, Any]) -> str:
    """Whom a client's certificate names: its one e-mail address (rfc822Name in subjectAltName) or, where it has none,
    its one common name, exactly as it stands there. Empty: nobody; it has several, none, or one that can be no
    user's."""
    from mailfront_proto.sasl.mechanism import decode_identity
    from mailfront_proto.sasl.saslprep import saslprep

    names = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "email"]
    if not names:
        names = [name for part in certificate.get("subject", ()) for kind, name in part if kind == "commonName"]
    if len(names) != 1 or not decode_identity(names[0].encode("utf-8", "surrogatepass")):
        return ""
    # A name that a store makes another of, which may be another user's, has not been certified.
    return names[0] if saslprep(names[0], stored=False) == names[0] else ""


def has_expired(certificate: Mapping[str, Any], now: float) -> bool:
    """Whether a client's certificate is good no more, `now` being seconds since 1970. OpenSSL looks only when it is
    shown, and who resumes a session in time, again and again, never shows it again."""
    from ssl import cert_time_to_seconds

    return "notAfter" in certificate and cert_time_to_seconds(certificate["notAfter"]) < now


def _add_names(default: "ssl.SSLContext", directory: str, getenv: Callable[[str], str | None]) -> None:
    """Let `default` give the certificates in `directory` to clients that ask for them by name, and its own to others.
    They are all loaded now: what clients ask for fills no cache."""
    import os

    try:
        files = sorted(name for name in os.listdir(directory) if name.endswith(".pem"))
    except OSError as error:
        raise TLSSettingError(
            f"$TLS_SNI_DIRECTORY: {directory}: {error.strerror}: name a directory of files NAME.pem",
            "TLS init failed: Error while reading file.",
        ) from error
    paths = {name.removesuffix(".pem").lower(): os.path.join(directory, name) for name in files}
    try:
        _NAMED[default] = {name: _context(path, path, getenv) for name, path in paths.items()}
    except TLSSettingError as error:
        text = str(error).partition(": ")[2]
        raise TLSSettingError(f"$TLS_SNI_DIRECTORY: {text}", error.log_line) from error

    def choose(tls: "ssl.SSLObject", name: str | None, context: "ssl.SSLContext") -> None:
        tls.context = context_for(default, name)

    default.sni_callback = choose


def context_for(context: "ssl.SSLContext", name: str | None) -> "ssl.SSLContext":
    """The one behind `context` whose certificate is for the host `name`; `context` itself if none is."""
    named = _NAMED.get(context)
    if named is None or name is None:
        return context
    host = name.lower().removesuffix(".")
    return named.get(host) or named.get("*." + host.partition(".")[2]) or context


def client_context(ca_file: str | None = None, *, verify: bool = True) -> "ssl.SSLContext":
    """A context for a client: TLS 1.2 at least, no compression, no renegotiation.

    `ca_file`: a PEM file with the authorities to trust in place of the system's. `verify`: False takes any
    certificate: nobody can listen then, but who can change what is sent can pose as the server. Raises OSError
    for a file that cannot be read, or holds no certificate (`ssl.SSLError`).
    """
    import ssl

    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _set_priority(context: "ssl.SSLContext", priority: str | None, compatible: bool) -> None:
    import ssl

    if priority == "modern":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    ciphers = _COMPATIBLE if compatible else _INTERMEDIATE
    # GnuTLS strings start like this; they mean nothing to OpenSSL, and its own choice is what they ask for.
    if priority and not priority.startswith(("NORMAL", "SECURE", "PERFORMANCE", "intermediate")):
        ciphers = priority
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as error:
        raise TLSSettingError(
            f"$TLS_PRIORITY: {priority!r} is no OpenSSL cipher string: give one, or modern or intermediate",
            "TLS priority error: The request is invalid.",
        ) from error


def _exists(path: str) -> bool:
    import os

    return os.path.exists(path)


_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")

_SIGNATURE_HASHES = {
    "2a864886f70d010104": "sha256",  # MD5 and SHA-1 with RSA: SHA-256 takes their place (RFC 5929 section 4.1)
    "2a864886f70d010105": "sha256",
    "2a864886f70d01010e": "sha224",  # RSA
    "2a864886f70d01010b": "sha256",
    "2a864886f70d01010c": "sha384",
    "2a864886f70d01010d": "sha512",
    "2a8648ce3d0401": "sha256",  # ECDSA with SHA-1
    "2a8648ce3d040301": "sha224",  # ECDSA
    "2a8648ce3d040302": "sha256",
    "2a8648ce3d040303": "sha384",
    "2a8648ce3d040304": "sha512",
}
"""The hash of a certificate's signature, by the object identifier (DER, hexadecimal) of its algorithm."""


def server_end_point(context: "ssl.SSLContext | None", name: str | None = None) -> bytes:
    """The channel binding ``tls-server-end-point`` (RFC 5929 section 4) of a context that `server_context` has made:
    the hash of the certificate that a client gets who asks for the host `name`. Empty where it is not defined: for
    Ed25519, say, whose signatures have no hash of their own."""
    certificate = _CERTIFICATES.get(context_for(context, name), b"") if context is not None else b""
    hash_name = _SIGNATURE_HASHES.get(_signature_algorithm(certificate))
    if hash_name is None:
        return b""
    import hashlib

    return hashlib.new(hash_name, certificate).digest()


def _first_certificate(path: str) -> bytes:
    """The server's own, which is the first of its chain."""
    import base64

    with open(path, encoding="latin-1") as file:
        match = _CERTIFICATE.search(file.read())
    return base64.b64decode(match[1]) if match is not None else b""


def _signature_algorithm(certificate: bytes) -> str:
    """The object identifier in the second part of a certificate (RFC 5280 section 4.1), in hexadecimal; empty if it is
    not there."""
    try:
        start, _ = _der_content(certificate, 0)
        _, algorithm = _der_content(certificate, start)
        start, _ = _der_content(certificate, algorithm)
        start, end = _der_content(certificate, start)
    except IndexError:
        return ""
    return certificate[start:end].hex()


def _der_content(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at `at` begins and ends."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    return start, start + length


_RSA = bytes.fromhex("2a864886f70d010101")  # the object identifier of RSA keys, 1.2.840.113549.1.1.1
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----(.*?)-----END", re.DOTALL)


def key_type(getenv: Callable[[str], str | None]) -> str:
    """``RSA`` or ``ECDSA``, read off the key file; for the log only."""
    try:
        with open(getenv("TLS_KEYFILE") or getenv("TLS_CERTFILE") or "") as file:
            match = _BLOCK.search(file.read())
    except (OSError, UnicodeDecodeError):
        return "RSA"
    if match is None or match[1] == "RSA ":
        return "RSA"
    if match[1] == "EC ":
        return "ECDSA"
    import base64

    return "RSA" if _RSA in base64.b64decode(match[2]) else "ECDSA"


_AEAD = {
    "AES_256_GCM": "AES-256-GCM",
    "AES_128_GCM": "AES-128-GCM",
    "CHACHA20_POLY1305": "CHACHA20-POLY1305",
    "AES_128_CCM": "AES-128-CCM",
}


def gnutls_names(facts: TLSFacts, key: str) -> str:
    """``PROTOCOL KEYEXCHANGE CIPHER MAC`` in GnuTLS's names, such as ``TLS1.3 ECDHE-RSA AES-256-GCM AEAD``:
    what the log of the original says, from what OpenSSL tells. `key`: ``RSA`` or ``ECDSA``."""
    protocol = facts.protocol.replace("TLSv", "TLS")
    name = facts.cipher
    if name.startswith("TLS_"):  # TLS 1.3: the suite names neither key exchange nor signature
        for openssl, gnutls in _AEAD.items():
            if openssl in name:
                return f"{protocol} ECDHE-{key} {gnutls} AEAD"
        return f"{protocol} ECDHE-{key} {name} AEAD"
    parts = name.split("-")
    exchange = "-".join(parts[:2]) if parts[0] in ("ECDHE", "DHE") else "RSA"
    rest = name.removeprefix(exchange + "-")
    aead = "GCM" in rest or "POLY1305" in rest or "CCM" in rest
    cipher = re.sub(r"^AES(\d+)", r"AES-\1", rest)
    mac = "AEAD" if aead else cipher.rpartition("-")[2]
    cipher = re.sub(r"-SHA\d*$", "", cipher)
    return f"{protocol} {exchange} {cipher if aead else cipher + '-CBC'} {mac}"


__all__ = ["SETTINGS", "TLSSettingError", "gnutls_names", "key_type", "server_context", "server_end_point"]
