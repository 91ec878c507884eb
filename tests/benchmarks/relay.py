"""The case R1: mail that is handed on.

Ours relays to Postfix's smtp-sink, which is not counted, and so does Postfix, by way of its queue. The C original,
which has no relay, writes it to a queue for another program, synced (its queuedir).
"""

import os
import pwd
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.loadgen import Address
from tests.benchmarks.servers import OURS, PEERS, Kind, Place, c_program, serving, start, tcpserver
from tests.benchmarks.targets import C_MAILFRONT, POSTFIX

CASE = "R1"

_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = /dev/null
maillog_file_prefixes = /dev
inet_interfaces = 127.0.0.1
myhostname = mx.example.org
mydestination =
relayhost = [{host}]:{port}
mynetworks = 127.0.0.0/8
alias_maps =
smtpd_peername_lookup = no
smtpd_recipient_restrictions = permit
in_flow_delay = 0
max_idle = 1s
"""
"""`max_idle`: processes that are done are gone before the next run. `in_flow_delay` would slow clients down."""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
retry unix - - n - - error
smtp unix - - n - - smtp
"""


def kinds(stack: ExitStack, scratch: Path, core: int, wanted: Iterable[str]) -> list[Kind]:
    """The servers that are in `wanted`, by their names; Postfix if the original is. The next server, on `core`, goes
    with `stack`. Raises `NotThere` and `DidNotStart`, of that server."""
    queue = scratch / "queue"
    for part in ("tmp", "new"):
        (queue / part).mkdir(parents=True, exist_ok=True)

    def c_mailfront(at: Place) -> list[str]:
        return [*tcpserver(at), c_program("mailfront"), "smtp", "queuedir", "accept"]

    [sink] = (kind for kind in PEERS if kind.name == "smtp-sink")
    address = stack.enter_context(start(sink, core, scratch)).address
    upstream = {"UPSTREAM": "{}:{}".format(*address)}
    found = [replace(PEERS[0], command=c_mailfront, environment={"QUEUEDIR": str(queue)})]
    if C_MAILFRONT in wanted:
        found.append(Kind(POSTFIX, lambda place: _postfix(stack, place, address), _postfix_missing))
    found += [replace(kind, command=serving(kind, ["smtp", "smtp", "accept"]), environment=upstream) for kind in OURS]
    return [kind for kind in found if kind.name in wanted or kind.name == POSTFIX]


def _postfix(stack: ExitStack, place: Place, sink: Address) -> list[str]:
    """A Postfix with everything below the directory of `place`, which its daemons, several users, must get into."""
    directory = place.port_file.parent
    for each in (directory, directory.parent):
        each.chmod(0o755)
    for part, owner in (("conf", "root"), ("queue", "root"), ("data", "postfix")):
        (directory / part).mkdir(exist_ok=True)
        os.chown(directory / part, pwd.getpwnam(owner).pw_uid, -1)
    (directory / "conf" / "main.cf").write_text(_MAIN.format(directory=directory, host=sink[0], port=sink[1]))
    (directory / "conf" / "master.cf").write_text(_MASTER.format(port=place.port))
    command = ["/usr/sbin/postfix", "-c", str(directory / "conf")]
    # Its master leaves the group of processes that it was started in.
    stack.callback(subprocess.run, [*command, "stop"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return [*command, "start-fg"]


def _postfix_missing() -> str | None:
    if not os.path.exists("/usr/sbin/postfix"):
        return "Postfix is left out: it is not installed (make peers)."
    return "Postfix is left out: it must be started by root." if os.geteuid() != 0 else None
