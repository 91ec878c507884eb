"""The two sides of an exchange, joined in memory over the lines that SMTP, POP3 and IMAP carry."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mailfront_proto.sasl import (
    Challenge,
    ClientExchange,
    ClientMechanism,
    Failed,
    FindKeys,
    Request,
    ServerExchange,
    ServerOptions,
)
from mailfront_proto.sasl.base64_line import encode_base64
from mailfront_proto.sasl.scram_keys import ScramKeys

Answer = Callable[[Request], "bool | ScramKeys | None"]
"""The application: keys or None for `FindKeys`, yes or no for the others."""


@dataclass
class Talk:
    """What came of an exchange. `lines`: what was said, the client's first; `requests`: what was asked."""

    requests: list[Request] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    failed: Failed | None = None
    succeeded: bool = False
    objection: str = ""
    cancelled: str = ""


def talk(
    client: ClientMechanism,
    options: ServerOptions,
    answer: Answer = lambda request: True,
    *,
    room: int | None = None,
    tamper: Callable[[bytes], bytes] = lambda line: line,
) -> Talk:
    """Play `client` against a server with `options`. `tamper`: what becomes of each line on its way."""
    talked = Talk()
    ours, server = ClientExchange(client), ServerExchange(options)
    initial = ours.initial_response(room)
    if initial is not None:
        initial = tamper(initial)
        talked.lines.append(initial)
    step = server.start(client.name.encode(), initial)
    while True:
        if isinstance(step, Failed):
            talked.failed = step
            break
        if isinstance(step, Request):
            talked.requests.append(step)
            answered = answer(step)
            if isinstance(step, FindKeys):
                assert answered is None or isinstance(answered, ScramKeys)
                step = server.supply_keys(answered)
                continue
            if answered:
                talked.succeeded = True
                talked.objection = ours.objection()
                break
            challenge = server.refused()
            if challenge is None:
                break
            step = challenge
        assert isinstance(step, Challenge)
        line = tamper(encode_base64(step.data))
        talked.lines.append(line)
        response = ours.respond(line)
        assert response is not None
        response = tamper(response)
        talked.lines.append(response)
        step = server.respond(response)
    talked.cancelled = ours.cancelled
    return talked
