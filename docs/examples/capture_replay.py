"""What did this client do? Replays the client's side of a captured session through the server machine.

    python capture_replay.py [--compat] FILE

FILE holds the bytes that the client has sent, as `tcpflow` or Wireshark's "follow stream" save them. Every
command is accepted, so that the session goes on as far as the bytes do. No network is touched.
"""

import sys
from pathlib import Path

from mailfront_proto.smtp import (
    COMPAT,
    DEFAULT,
    NEED_DATA,
    PAUSED,
    Body,
    ConnectionClosed,
    Profile,
    SMTPServer,
    StartTLS,
)


def replay(capture: bytes, profile: Profile = DEFAULT) -> list[str]:
    """One line for each event, and one for each line that the server would have said."""
    machine = SMTPServer("replay.example.org", profile)
    lines: list[str] = []
    size = 0
    fed = 0
    while True:
        event = machine.next_event()
        for reply in machine.data_to_send().splitlines():
            lines.append(f"S: {reply.decode('utf-8', 'replace')}")
        if event is NEED_DATA:
            # At most 64 KiB are ever held: the machine refuses to hoard what it cannot use yet.
            chunk = capture[fed : fed + 65536]
            fed += len(chunk)
            if chunk:
                machine.receive_data(chunk)
            else:
                machine.receive_eof()
            continue
        if event is PAUSED:
            continue
        if isinstance(event, Body):
            size += len(event.data)
            continue
        if size:
            lines.append(f"   {size} bytes of message")
            size = 0
        lines.append(f"   {event!r}")
        if isinstance(event, ConnectionClosed):
            return lines
        if isinstance(event, StartTLS):
            machine.reply(454, "4.7.0 What follows is encrypted")
        elif machine.answer_owed:
            machine.accept()


def main(arguments: list[str]) -> int:
    """Print the replay of the file named."""
    profile = COMPAT if "--compat" in arguments else DEFAULT
    names = [argument for argument in arguments if argument != "--compat"]
    if len(names) != 1:
        print(f"usage: {sys.argv[0]} [--compat] FILE", file=sys.stderr)
        return 2
    print("\n".join(replay(Path(names[0]).read_bytes(), profile)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
