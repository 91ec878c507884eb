"""Secrets that cannot be printed."""

class Secret:
    """Bytes that show in no log, trace, ``repr`` or exception; `reveal` is the one way to them.

    Two secrets compare in constant time (`hmac.compare_digest`).
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves. Do not log them."""
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        import hmac  # slow to import, for a program that starts for each connection

        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"
