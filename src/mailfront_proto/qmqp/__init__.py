"""QMQP, both roles, as machines without I/O. Events, profiles and limits are those of `mailfront_proto.qmtp`.

The client is imported when it is first used.
"""

from typing import TYPE_CHECKING

from mailfront_proto.qmqp.server import QMQPServer

if TYPE_CHECKING:
    from mailfront_proto.qmqp.client import QMQPClient
else:

    def __getattr__(name: str) -> object:
        if name != "QMQPClient":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mailfront_proto.qmqp.client import QMQPClient

        return QMQPClient


__all__ = ["QMQPClient", "QMQPServer"]
