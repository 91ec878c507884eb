"""Two machines that talk to each other in memory."""

from typing import Generic, TypeVar

from mailfront_proto.testing.cutting import Chunker
from mailfront_proto.testing.player import Machine, Player

C = TypeVar("C", bound=Machine)
S = TypeVar("S", bound=Machine)


class Pair(Generic[C, S]):
    """A client against a server, and the wire between them.

    `client`, `server`: the two with their applications. `chunker`: how what is on its way arrives (`len`: all at
    once; `one_byte`; `random_sizes(seed)`). Where one side has ended, the other gets the end of input once
    everything has arrived.

    What only the test can do (a TLS handshake, the client's next command) it does between two calls of `settle`.
    """

    def __init__(self, client: Player[C], server: Player[S], chunker: Chunker = len) -> None:
        self.client = client
        self.server = server
        self._chunker = chunker
        self._to_server = b""
        self._to_client = b""
        self._client_writes = 0  # those that were taken over
        self._server_writes = 0
        self._server_told = False
        self._client_told = False

    def settle(self) -> None:
        """Go on until nothing is on its way and neither side has anything to say."""
        self.client.step()
        self.server.step()
        self._collect()
        while True:
            if self._to_server:
                size = self._chunker(self._to_server)
                piece, self._to_server = self._to_server[:size], self._to_server[size:]
                if piece:
                    self.server.receive(piece)
                    self._collect()
            if self._to_client:
                size = self._chunker(self._to_client)
                piece, self._to_client = self._to_client[:size], self._to_client[size:]
                if piece:
                    self.client.receive(piece)
                    self._collect()
            if not self._to_server and not self._to_client and not self._tell_the_end():
                return

    def _collect(self) -> None:
        """Put on the wire what was written since."""
        self._to_server += b"".join(self.client.writes[self._client_writes :])
        self._client_writes = len(self.client.writes)
        self._to_client += b"".join(self.server.writes[self._server_writes :])
        self._server_writes = len(self.server.writes)

    def _tell_the_end(self) -> bool:
        """Whether a side was told that the other one has closed."""
        if self.client.ended and not self._server_told:
            self._server_told = True
            self.server.end()
        elif self.server.ended and not self._client_told:
            self._client_told = True
            self.client.end()
        else:
            return False
        self._collect()
        return True
