"""What every service makes of its settings, and how it says that one cannot be used."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from mailfront_io.plugin import Kind, Setting
from mailfront_io.session import parse_number

if TYPE_CHECKING:
    import ssl

    from mailfront_io.auth.store import CredentialStore


class ConfigurationError(Exception):
    """A setting or argument that cannot be used: one sentence with its name and the remedy."""


class NoImmediateTLS(ConfigurationError):
    """TLS is to come first and cannot be had, in the compat profile; told in the log already."""


_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")


def inherited_environment() -> dict[str, str]:
    """The environment that this program was started with. Where the locale is C, Python sets ``LC_CTYPE`` in its own
    (PEP 538), which a program that takes its place is not to find."""
    environment = dict(os.environ)
    if environment.get("LC_CTYPE") in _COERCED:
        ours = environment.pop("LC_CTYPE")
        try:
            with open("/proc/self/environ", "rb") as file:
                given = file.read().split(b"\0")
        except OSError:
            given = [] if sys.flags.utf8_mode else [b"LC_CTYPE=" + ours.encode()]
        for assignment in given:
            if assignment.startswith(b"LC_CTYPE="):
                environment["LC_CTYPE"] = os.fsdecode(assignment[9:])
    return environment


def is_compat(environment: Mapping[str, str]) -> bool:
    """Whether ``$MAILFRONT_PROFILE`` names the compat profile. Raises `ConfigurationError` if it names no profile."""
    name = environment.get("MAILFRONT_PROFILE") or "default"
    if name not in ("default", "compat"):
        raise ConfigurationError(f"$MAILFRONT_PROFILE is {name!r}: set it to default or compat, or unset it")
    return name == "compat"


def check_settings(settings: Iterable[Setting], environment: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for the first setting with a value of the wrong kind."""
    for setting in settings:
        value = environment.get(setting.variable)
        if value and setting.kind is Kind.NUMBER and parse_number(value) is None:
            raise ConfigurationError(
                f"${setting.variable} is {value!r}, which is no number: write decimal digits, or unset it "
                f"({setting.doc})"
            )


def open_store(environment: Mapping[str, str]) -> "CredentialStore | None":
    """The credential store that ``$AUTH_STORE`` names. Raises `ConfigurationError`."""
    name = environment.get("AUTH_STORE")
    if not name:
        return None
    from mailfront_io.auth.opening import open_named_store

    try:
        return open_named_store(name)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def load_tls(environment: Mapping[str, str], log: Callable[[str], None]) -> "tuple[ssl.SSLContext | None, str]":
    """The context of the ``$TLS_*`` settings and the kind of its key for the log; None and nothing where there is to
    be no TLS. Raises `ConfigurationError`.

    In the compat profile settings that cannot be used are told in the log, and the service goes without TLS, as the
    original's does; unless TLS is to come first: then `NoImmediateTLS` is raised.
    """
    getenv = environment.get
    if not getenv("TLS_CERTFILE"):
        return None, ""
    from mailfront_io.tls import TLSSettingError, key_type, server_context

    try:
        return server_context(getenv), key_type(getenv)
    except TLSSettingError as error:
        if not is_compat(environment):
            raise ConfigurationError(str(error)) from error
        log(error.log_line)
        if "TLS_IMMEDIATE" in environment:
            raise NoImmediateTLS(str(error)) from error
        return None, ""
