"""From the value of ``$AUTH_STORE`` to a credential store."""

from mailfront_io.auth.store import CredentialStore, StoreUnavailable

KINDS = "sqlite:FILE, passwd:FILE, static:FILE, cvm:MODULES or class:MODULE:CLASS"


def open_named_store(name: str) -> CredentialStore:
    """``KIND:NAME``; each kind is imported when it is asked for. Raises `ValueError`: what is wrong, and the remedy."""
    kind, _, argument = name.partition(":")
    if not argument or kind not in ("sqlite", "passwd", "static", "cvm", "class"):
        raise ValueError(f"$AUTH_STORE is {name!r}: write {KINDS}")
    try:
        return _open(kind, argument)
    except OSError as error:
        raise ValueError(f"$AUTH_STORE: {argument}: {error.strerror}: name a file that this user can read") from error
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
        return kind()
    except StoreUnavailable:
        raise
    except Exception as error:  # a stranger's class may raise anything
        raise ValueError(f"{target} cannot be made: {type(error).__name__}: {error}") from error
