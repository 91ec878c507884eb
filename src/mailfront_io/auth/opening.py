"""From the value of ``$AUTH_STORE`` to a credential store."""

from mailfront_io.auth.store import CredentialStore, StoreUnavailable
from mailfront_proto.secret import Secret

KINDS = "sqlite:FILE, passwd:FILE, static:FILE, cvm:MODULES or class:MODULE:CLASS"


def open_named_store(name: str) -> CredentialStore:
    """``KIND:NAME``; each kind is imported when it is asked for. Raises `ValueError`: what is wrong, and the remedy."""
    kind, _, argument = name.partition(":")
    if (
        not argument
        or kind not in ("sqlite", "passwd", "static", "cvm", "class")
        or (kind == "class" and not all(argument.partition(":")))
    ):
        raise ValueError(f"$AUTH_STORE is {name!r}: write {KINDS}")
    try:
        return _open(kind, argument)
    except OSError as error:
        raise ValueError(f"$AUTH_STORE: {argument}: {error.strerror}: name a file that this user can read") from error
    except UnicodeDecodeError as error:  # its own text names no file
        raise ValueError(f"$AUTH_STORE: {argument} is not UTF-8: write it anew") from error
    except (ValueError, StoreUnavailable) as error:
        raise ValueError(f"$AUTH_STORE: {error}") from error


def _open(kind: str, argument: str) -> CredentialStore:
    if kind == "sqlite":
        from mailfront_io.auth.sqlite import SQLiteStore

        return SQLiteStore(argument)
    if kind == "passwd":
        from mailfront_io.auth.passwd import PasswdStore

        return PasswdStore(argument)
    if kind == "cvm":
        from mailfront_io.auth.cvm import CVMStore

        return CVMStore(argument, lookups=argument)
    if kind == "class":
        return _of_class(argument)
    from mailfront_io.auth.static import StaticStore

    return StaticStore.from_file(argument)


def _of_class(target: str) -> CredentialStore:
    """A store of somebody's own: ``MODULE:CLASS``, whose objects are made without arguments."""
    from mailfront_io.registry import CannotLoad, load_class

    try:
        kind = load_class("store", target, target, CredentialStore)
    except CannotLoad as error:
        raise ValueError(error.with_remedy) from error
    try:
        store = kind()
    except StoreUnavailable:
        raise
    except Exception as error:  # a stranger's class may raise anything
        raise ValueError(f"{target} cannot be made: {type(error).__name__}: {error}") from error
    _check_mechanisms(store, target)
    return store


def _check_mechanisms(store: CredentialStore, target: str) -> None:
    """What no session could offer is said now. (A ``…-PLUS`` comes by itself.)"""
    from mailfront_proto.sasl.options import NEEDED

    known = [name for name in NEEDED if not name.endswith("-PLUS")]
    for attribute in ("mechanisms", "weak_mechanisms"):
        names = getattr(store, attribute)
        if not isinstance(names, tuple | list) or not all(name in known for name in names):
            raise ValueError(f"{target}: {attribute} is {names!r}: make it a tuple of names out of {', '.join(known)}")
    if any(name.startswith("SCRAM-") for name in (*store.mechanisms, *store.weak_mechanisms)):
        secret = store.salt_secret
        if not isinstance(secret, Secret) or len(secret.reveal()) < 16:
            raise ValueError(f"{target}: SCRAM needs a salt_secret: make it a Secret of 16 octets of chance or more")
