"""Prints the QMTP and QMQP reference from the code's own documentation: ``python docs/generate_qmtp_qmqp_reference.py``
writes ``docs/qmtp-qmqp-reference.md``; with ``--print`` it goes to standard output.
"""

from pathlib import Path

from generate_pop3_reference import field_table, methods
from generate_smtp_reference import enum_list, event_section, markdown, members
from printed_page import main

from mailfront_proto import netstring
from mailfront_proto.qmqp.client import QMQPClient
from mailfront_proto.qmqp.server import QMQPServer
from mailfront_proto.qmtp import events, package, profile
from mailfront_proto.qmtp.client import MAX_RESPONSE, WINDOW, PackageClient, QMTPClient
from mailfront_proto.qmtp.server import QMTPServer

PAGE = Path(__file__).with_name("qmtp-qmqp-reference.md")

HEAD = """\
# QMTP and QMQP reference

The servers and the clients of QMTP (port 209) and QMQP (port 628), D. J. Bernstein's protocols, in `mailfront_proto`;
and netstrings, of which both are made. No RFC describes them: the specifications are at
<https://cr.yp.to/proto/qmtp.txt>, <https://cr.yp.to/proto/qmqp.html> and <https://cr.yp.to/proto/netstrings.txt>. This
page is printed from the documentation in the code by `docs/generate_qmtp_qmqp_reference.py`, and a test checks that it
is current.

All are used as the machines of SMTP are: feed, pull, answer, drain; [](sans-io.md) shows it. The message comes first
here, and then its envelope:

```python
from mailfront_proto.qmtp import Body, ConnectionClosed, QMTPServer, Recipient

def serve(said, local):
    machine = QMTPServer(lf_bodies=True)
    machine.receive_data(said)
    machine.receive_eof()
    message = b""
    while not isinstance(event := machine.next_event(), ConnectionClosed):
        if isinstance(event, Body):
            message += event.data
        elif isinstance(event, Recipient) and event.refusal is None and event.address.domain != local:
            machine.reply(553, "5.7.1 No relaying")
        elif machine.answer_owed:  # the message, its sender, a recipient, the end: say yes
            machine.accept()
    return message, machine.data_to_send()

said = b"16:\\nSubject: q\\n\\nhi\\n,11:a@b.example,30:11:c@d.example,11:e@f.example,,"
message, got = serve(said, b"d.example")
assert message == b"Subject: q\\n\\nhi\\n"
assert got == b"24:K2.6.0 Message accepted.,18:D5.7.1 No relaying,"
```

And the client:

```python
from mailfront_proto.qmtp import MessageDone, QMTPClient

client = QMTPClient()
client.send_message("a@b.example", ["c@d.example", "e@f.example"], size=len(message))
client.send_body(message)
client.end_of_body()
assert client.data_to_send() == said
client.receive_data(got)
done = client.next_event()
assert isinstance(done, MessageDone)
assert [result.delivered for result in done.results] == [True, False]
```

How the two differ:

| | QMTP | QMQP |
| --- | --- | --- |
| packages on a connection | any number, without waiting | one |
| around a package | nothing | a netstring |
| line ends | LF or CRLF, by the message's first byte | LF |
| recipients | in a netstring, held until it is complete | asked about as they come |
| responses | one for each recipient | one: the first refusal, or the answer to the message |
| `MessageEnd` | if one recipient was accepted | if all were |

A netstring that is broken ends the connection with a `Z`, since nothing behind it can be understood. One that is only
too long is thrown away as it comes, and refused: the machine stays in step. Nothing is asked to be accepted before the
last comma of its package is here. Addresses with control bytes are refused in every profile; 8-bit ones pass, as the
protocols have it.
"""

COMPAT_NOTES = """\
## The compat profile

Answers are those of the original, byte for byte, and its recorded sessions are replayed under every split: one
response for a QMTP package, and no recipient is told behind a refusal there; a wrapper whose length is wrong; lengths
with leading zeros. Also in this profile lengths do not wrap (they have ten digits at most), and control bytes in
addresses are refused.
"""

CLIENT_HEAD = f"""\
# The clients

`QMTPClient` and `QMQPClient` tell `MessageDone`, with a result for each recipient, and `ConnectionClosed`; both are
described above and in [](smtp-reference.md). Codes of results are 250 for `K`, 451 for `Z`, 554 for `D`. What was not
answered when the connection was lost is temporary, since nobody knows. A response is at most {MAX_RESPONSE} bytes; at
most {WINDOW} messages are unanswered.
"""

NETSTRINGS = """\
```python
from mailfront_proto.buffer import ReceiveBuffer
from mailfront_proto.netstring import OVERSIZED, NetstringReader, encode_netstring

buffer = ReceiveBuffer()
reader = NetstringReader(buffer)
buffer.feed(encode_netstring(b"joe") + b"13:too long for")
assert reader.read_whole(10) == b"joe"
assert reader.read_whole(10) is None  # not all of it is here yet
buffer.feed(b"!,")
assert reader.read_whole(10) is OVERSIZED and not len(buffer)
```
"""


def order() -> list[str]:
    """What comes in each state of the two servers but what it waits for, from the tables that the machines use."""
    lines = ["The client sends no commands: one netstring follows the other, in this order. What else may come:", ""]
    lines += ["| state | QMTP | QMQP | the end of input | a broken netstring |", "| --- | --- | --- | --- | --- |"]
    for state in package.State:
        there = ["yes" if state in kind._readers else "–" for kind in (QMTPServer, QMQPServer)]
        said = [f"`Z{table[state]}`" if state in table else "–" for table in (package.AT_END, package.AT_FAULT)]
        lines.append(f"| `{state.value}` | " + " | ".join([*there, *said]) + " |")
    return [*lines, ""]


def page() -> str:
    """The whole page."""
    parts = [HEAD, "# The servers", "", "## QMTPServer", "", markdown(QMTPServer.__doc__), ""]
    parts += ["## QMQPServer", "", markdown(QMQPServer.__doc__), "", "## Events", "", markdown(events.__doc__), ""]
    for kind in members(events, lambda kind: True):
        parts += event_section(kind)
    parts += ["## Answers", "", "Where an event owes an answer, one of these is due.", ""]
    parts += [*methods(package.PackageServer, ("accept", "reply", "abort")), *methods(QMTPServer, ("reply_each",))]
    parts += ["## States", "", markdown(package.State.__doc__), "", *enum_list(package.State), "", *order()]
    parts += ["## Profile", "", markdown(profile.Profile.__doc__), ""]
    parts += [*field_table(profile.Profile, profile.DEFAULT, profile.COMPAT), "", "## Limits", ""]
    parts += [markdown(profile.Limits.__doc__), ""]
    parts += [*field_table(profile.Limits, profile.DEFAULT.limits, profile.COMPAT.limits), "", COMPAT_NOTES]
    parts += [CLIENT_HEAD, "## QMTPClient", "", markdown(QMTPClient.__doc__), "", *methods(QMTPClient)]
    parts += ["## QMQPClient", "", markdown(QMQPClient.__doc__), "", *methods(QMQPClient), "## Of both", ""]
    parts += [*methods(PackageClient, ("send_body", "end_of_body", "next_event"))]
    parts += ["# Netstrings", "", markdown(netstring.__doc__), "", NETSTRINGS, "## NetstringReader", ""]
    parts += [markdown(netstring.NetstringReader.__doc__), ""]
    parts += [*methods(netstring.NetstringReader, ("read_length", "read_slice", "read_whole")), "## Fault", ""]
    parts += [*enum_list(netstring.Fault)]
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    main(PAGE, page)
