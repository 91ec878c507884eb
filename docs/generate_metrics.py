"""Prints the page of the metrics from the families that the code declares: ``python docs/generate_metrics.py`` writes
``docs/metrics.md``; with ``--print`` it goes to standard output.
"""

from pathlib import Path

from printed_page import main

from mailfront_io import monitor
from mailfront_io.metrics import OF_LISTENERS, OF_SERVER, PREFIX, SECONDS, Family

PAGE = Path(__file__).with_name("metrics.md")

HEAD = """\
# Metrics and health

A server tells how it is by HTTP, at an address of its own, if it is asked to:

```toml
[metrics]
listen = "127.0.0.1:9465"
```

or, without a file, `mailfront serve --metrics :9465 smtp echo accept` (not with `--driver fork`). An address without a
host is on 127.0.0.1. The file may also have `unix:/PATH`, a socket for its owner alone (mode 0600), or `systemd:NAME`.
There is neither TLS nor a password, so leave it on loopback: `mailfront config check` warns of other addresses.

| path | answer |
| --- | --- |
| `/metrics` | everything below, as Prometheus reads it (text format 0.0.4) |
| `/healthz` | 200: somebody is alive who can answer |
| `/readyz` | 200 while connections are served; 503, with `starting`, `stopping` or `no worker serves`, while not |

```console
$ curl -s http://127.0.0.1:9465/metrics | grep messages
# HELP mailfront_messages_total messages that came to their end, by our answer: 250, 5xx or 4xx
# TYPE mailfront_messages_total counter
mailfront_messages_total{listener="mx",protocol="smtp",result="accepted"} 1048
mailfront_messages_total{listener="mx",protocol="smtp",result="refused"} 17
mailfront_messages_total{listener="mx",protocol="smtp",result="deferred"} 2
```

"""

TAIL = """\

## What can be relied on

- **One answer for all workers.** Each counts in memory that the supervisor sees, too, and the supervisor answers; what
  a worker has counted stays when it ends, is replaced or is killed. So counters never go back, not at a reload either;
  they begin at 0 with the supervisor. What is open (`connections`) ends with its worker.
- **No label is a peer's.** Names of listeners come from the configuration, everything else from lists in the code; a
  mechanism that nobody knows is `other`. So the number of time series is known before the first client comes. Two
  listeners with one name and protocol are counted together, so give them names.
- **It costs next to nothing**, and nothing where it is off: an addition for each message; the rest for each connection,
  login or handshake, and for what is refused.
- **Bytes are counted at the end of a session**, and those in front of STARTTLS when TLS begins.
- **Its clients can do no harm.** There is one request a connection, {request} bytes of it, {seconds:g} seconds for it
  and its answer, and {clients} at a time: one more, and the oldest has to go.

## For alerts

| expression | when it is more than 0 |
| --- | --- |
| `rate(mailfront_workers_restarted_total[10m])` | workers crash |
| `increase(mailfront_reloads_total{{result="failed"}}[1h])` | a configuration was wrong, and the old one is in force |
| `rate(mailfront_connections_refused_total[5m])` | a limit of connections is met |
| `rate(mailfront_messages_total{{result="deferred"}}[5m])` | mail is asked to come again: look at the log for why |
| `rate(mailfront_sessions_ended_total{{reason="aborted"}}[5m])` | sessions end by faults of ours, which the log has |

## Why no client library

`prometheus_client` is a good one, and the tests read our text with its parser. It would not have made this smaller:
printing the text is forty lines; its way to add up processes keeps a file for each that there ever was, in a directory
that somebody must clean; and its HTTP server has no limits of time, which the supervisor of a mail server must have. As
an extra it would also have had a second way beside it, for who has not installed it.
"""


def row(family: Family, listener: bool) -> str:
    """The family's row of the table."""
    values = [
        f"`{name}`" + (f": {', '.join(f'`{value}`' for value in several)}" if several else "")
        for name, several in zip(family.labels, family.values or ((),) * len(family.labels), strict=True)
    ]
    labels = [*(["`listener`, `protocol`"] if listener else []), *values]
    return f"| `{PREFIX}{family.name}` | {family.kind} | {'; '.join(labels)} | {family.doc} |\n"


def page() -> str:
    """The whole page."""
    table = "## What is counted\n\n| metric | type | labels | what it is |\n| --- | --- | --- | --- |\n"
    table += "".join([row(family, True) for family in OF_LISTENERS] + [row(family, False) for family in OF_SERVER])
    bounds = ", ".join(f"{bound:g}" for bound in SECONDS)
    table += (
        f"\nThe histogram's buckets end at {bounds} seconds. Metrics of messages are there for protocols that\n"
        "carry mail; those of logins appear with the first one.\n"
    )
    tail = TAIL.format(request=monitor.MAX_REQUEST, seconds=monitor.SECONDS, clients=monitor.MAX_CLIENTS)
    return HEAD + table + tail


if __name__ == "__main__":
    main(PAGE, page)
