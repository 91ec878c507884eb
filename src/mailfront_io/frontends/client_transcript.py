"""The transcript of a client session: what was said, line by line, fit to be shown.

Lines look as in the examples of the RFCs: ``C: `` we, ``S: `` the server, and ``*: `` what happened without
words. Of a message there is only its size. No secret is in it: what we say in an AUTH exchange is masked, and so
is every word of it that the server says back (some repeat a command that they do not like). No control byte of
the server gets through to a terminal.
"""

from collections.abc import Callable

from mailfront_proto.secret import Secret

MASK = "***"

_SHORT = 4  # a word below this many characters is no secret worth masking, and would be found everywhere


def printable(text: str) -> str:
    """`text` with everything that a terminal would not print as it is written as an escape."""
    if text.isprintable() and text.isascii():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text
    )


class Transcript:
    """Tells `sink` each line, without line end; None: nobody listens, and `mask` alone is of use."""

    def __init__(self, sink: Callable[[str], None] | None) -> None:
        self._sink = sink
        self._secrets: set[str] = set()
        self._partial = b""

    def keep_secret(self, secret: Secret) -> None:
        """Mask `secret` wherever it appears from now on."""
        self._keep(secret.reveal())

    def _keep(self, word: bytes) -> None:
        if len(word) >= _SHORT:
            self._secrets.add(word.decode("utf-8", "surrogateescape"))

    def mask(self, text: str) -> str:
        """`text` without the secrets of the session."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def note(self, text: str) -> None:
        """Something that happened."""
        if self._sink is not None:
            self._sink(f"*: {printable(text)}")

    def sent(self, data: bytes) -> None:
        """Commands that are sent, whole lines, and whole chunks behind BDAT."""
        while self._sink is not None and data:
            line, _, data = data.partition(b"\r\n")
            self._sink(f"C: {printable(self.mask(line.decode('utf-8', 'surrogateescape')))}")
            if line.startswith(b"BDAT "):
                data = data[int(line.split(b" ")[1]) :]

    def sent_in_auth(self, data: bytes) -> None:
        """A line of an AUTH exchange; what is secret in it is so from now on."""
        line = data.rstrip(b"\r\n")
        words = line.split(b" ")
        shown = 2 if words[0] == b"AUTH" else 0
        for word in words[shown:]:
            self._keep(word)
        if self._sink is not None:
            shown_words = [word.decode("ascii") for word in words[:shown]]
            masked = line.decode("ascii") if line in (b"*", b"=") else MASK
            self._sink("C: " + " ".join([*shown_words, masked] if words[shown:] else shown_words))

    def received(self, data: bytes) -> None:
        """Bytes from the server, cut anywhere."""
        if self._sink is None:
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._received_line(line)

    def finish(self) -> None:
        """The connection is over: tell what is left of a line."""
        if self._sink is not None and self._partial:
            self._received_line(self._partial)
            self._partial = b""

    def _received_line(self, line: bytes) -> None:
        assert self._sink is not None
        text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
        self._sink(f"S: {printable(self.mask(text))}")
