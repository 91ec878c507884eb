"""Passwords against SCRAM keys: PBKDF2, off the loop, and never much of it at once.

It is slow by intent (15,000 rounds take about five milliseconds of a processor), so it runs in threads, as many at once
as there are processors. Who comes when many wait is told that the store cannot say now: so a flood of logins
neither takes all threads nor all of the processors' time.
"""

import hashlib
import hmac
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from mailfront_io.auth.store import StoreUnavailable
from mailfront_proto.errors import LocalProtocolError
from mailfront_proto.sasl.scram_keys import SALT_SIZE, ScramKeys, derive_keys
from mailfront_proto.secret import Secret

T = TypeVar("T")

MAX_WAITING: Final = 16
"""Derivations that may wait for a processor. More threads than this are left for the disk in any driver."""

WAIT_SECONDS: Final = 10.0


class Turnstile:
    """Lets `at_once` calls through at a time, and `MAX_WAITING` wait."""

    def __init__(self, at_once: int, max_waiting: int = MAX_WAITING) -> None:
        self._running = threading.BoundedSemaphore(at_once)
        self._room = threading.BoundedSemaphore(at_once + max_waiting)

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """``function(*arguments)`` in its turn. Raises `StoreUnavailable` when there is no room to wait."""
        if not self._room.acquire(blocking=False):
            raise StoreUnavailable("too many logins at once")
        try:
            if not self._running.acquire(timeout=WAIT_SECONDS):
                raise StoreUnavailable("too many logins at once")
            try:
                return function(*arguments)
            finally:
                self._running.release()
        finally:
            self._room.release()


TURNSTILE: Final = Turnstile(os.cpu_count() or 1)
"""That of this process."""


def matches(password: Secret, keys: ScramKeys) -> bool:
    """Whether the keys were made from `password`. Blocks: call it in a `Thread`. Raises `StoreUnavailable`."""
    try:
        derived = TURNSTILE.call(derive_keys, password, keys.salt, keys.iterations, keys.hash_name)
    except LocalProtocolError:  # a password that cannot be one: empty, or prohibited by SASLprep
        TURNSTILE.call(derive_keys, Secret(b"x"), keys.salt, keys.iterations, keys.hash_name)
        return False
    return bool(derived.stored_key == keys.stored_key) & bool(derived.server_key == keys.server_key)


def keys_of_nobody(username: str, salt_secret: Secret, iterations: int, hash_name: str = "sha256") -> ScramKeys:
    """Keys that no password has, to compute with for a user who does not exist."""
    salt = hmac.digest(salt_secret.reveal(), username.encode("utf-8", "surrogateescape"), "sha256")[:SALT_SIZE]
    size = hashlib.new(hash_name).digest_size
    return ScramKeys(hash_name, salt, iterations, Secret(os.urandom(size)), Secret(os.urandom(size)))
