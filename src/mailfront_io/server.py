"""``mailfront serve``: listeners of our own, where the original needs tcpserver.

`main` reads the arguments, makes services and sockets, and hands them to a driver. Without a
PROTOCOL BACKEND line it is the demonstration of `mailfront_io.demo`.
"""

import argparse
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NoReturn

from mailfront_io.admission import DEFAULT, Admission, Limits
from mailfront_io.config.keys import MAX_WORKERS
from mailfront_io.drivers.listener import Listener, Started
from mailfront_io.listening import (
    BadAddress,
    ListeningAddress,
    open_listener,
    parse_listening_address,
    parse_monitor_address,
)
from mailfront_io.log import described
from mailfront_io.ops import Connection
from mailfront_io.ops import Session as SessionCoroutine
from mailfront_io.service import Service, service_from_line
from mailfront_io.session import facts_above
from mailfront_io.settings import ConfigurationError

if TYPE_CHECKING:
    from mailfront_io.login_service import LoginService
    from mailfront_io.metrics import Meter, Page
    from mailfront_io.monitor import Monitor
    from mailfront_io.server_log import Log

EX_CONFIG = 78

DRIVERS = ("asyncio", "trio", "blocking", "fork")
LOOPS = ("auto", "asyncio", "uvloop")
Loop = Literal["auto", "asyncio", "uvloop"]
DEVELOPMENT_PORTS = {"smtp": 2525, "lmtp": 2524, "qmtp": 2209, "qmqp": 2628, "pop3": 2110, "imap": 2143}

EPILOG = """\
Without PROTOCOL BACKEND it serves the development defaults: SMTP on 2525, with STARTTLS and AUTH on 2587,
in TLS on 2465, all on 127.0.0.1, and says what to try. With it, settings are environment variables, as in
the one-shot form, for instance:

  QUEUEDIR=/var/spool/in mailfront serve --listen 127.0.0.1:2525 smtp queuedir counters accept
  AUTH_STORE=static:users MAILDIR_ROOT=/var/maildirs TLS_CERTFILE=mail.pem mailfront serve pop3 maildir
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service and the address where it is served."""

    service: "Service | LoginService"
    host: str
    port: int


def facts(connection: Connection, local_host: str) -> dict[str, str]:
    """The UCSPI variables of a connection that we accepted ourselves."""
    local, remote = connection.local, connection.remote
    if local is not None and remote is not None and ":" not in remote[0] and ":" not in local[0]:  # the usual case
        return {
            "PROTO": "TCP",
            "TCPLOCALHOST": local_host,
            "TCPREMOTEHOST": "",
            "TCPLOCALIP": local[0],
            "TCPLOCALPORT": str(local[1]),
            "TCPREMOTEIP": remote[0],
            "TCPREMOTEPORT": str(remote[1]),
        }
    ip_version = "TCP6" if remote is not None and ":" in remote[0] else "TCP"
    found = {"PROTO": ip_version, f"{ip_version}LOCALHOST": local_host, f"{ip_version}REMOTEHOST": ""}
    for side, address in (("LOCAL", local), ("REMOTE", remote)):
        if address is not None:
            found[f"{ip_version}{side}IP"] = address[0].partition("%")[0]
            found[f"{ip_version}{side}PORT"] = str(address[1])
    return found


def parse_address(text: str, default_port: int) -> tuple[str, int]:
    """``HOST:PORT``, ``HOST``, ``:PORT`` or ``[IPV6]:PORT``; 127.0.0.1 if there is no host. Raises
    `ConfigurationError`."""
    try:
        address = parse_listening_address(text, default_port)
    except BadAddress as error:
        raise ConfigurationError(f"--listen {error}") from None
    if address.kind != "tcp":
        raise ConfigurationError(f"--listen {text}: write HOST:PORT")
    return address.host or "127.0.0.1", address.port


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ConfigurationError`."""
    try:
        return open_listener(ListeningAddress("tcp", host, port))
    except BadAddress as error:
        raise ConfigurationError(f"{error}: choose another with --listen HOST:PORT") from None


def serve(
    endpoints: Sequence[Endpoint],
    log: "Log",
    *,
    driver: str = "asyncio",
    loop: Loop = "auto",
    grace: float = 30.0,
    port_file: str | None = None,
    admission: Admission | None = None,
    on_listening: Callable[[list[str]], None] | None = None,
    metrics: ListeningAddress | None = None,
) -> None:
    """Serve `endpoints` under `driver` until SIGTERM or SIGINT; the main thread's job.

    `port_file` gets one ``HOST:PORT`` line per endpoint once all listen, and one for `metrics`, if it says where to
    tell them; `on_listening` gets the same list, without the latter.
    """
    admission = admission or Admission(log)
    local_host = os.environ.get("TCPLOCALHOST") or socket.gethostname()
    sockets: list[socket.socket] = []
    try:
        for endpoint in endpoints:
            if endpoint.service.protocol == "lmtp" and endpoint.port == 25:
                # RFC 2033 section 5: LMTP must not be used on the SMTP port.
                raise ConfigurationError("--listen: LMTP may not be served on port 25: choose another port")
            sockets.append(listen(endpoint.host, endpoint.port))
        named = [(f"{e.service.protocol}-{place}", e.service.protocol) for place, e in enumerate(endpoints, 1)]
        page = _page(named) if metrics is not None else None
        listeners = []
        for sock, endpoint, (name, protocol) in zip(sockets, endpoints, named, strict=True):
            meter = page.meter(name, protocol) if page is not None else None
            session = session_factory(endpoint.service, local_host, name, log, meter)
            admit = partial(admission.admit, protocol=protocol, refused=meter.refused if meter is not None else None)
            listeners.append(metered(Listener(sock, session, admit, admission.release), meter))
        names = [_name(sock) for sock in sockets]
        failures: list[ConfigurationError] = []
        ready = False
        monitor: Monitor | None = None

        def state() -> str:
            if any(sock.fileno() < 0 for sock in sockets):  # drivers close them when they stop
                return "stopping"
            return "ready" if ready else "starting"

        def started(stop: Callable[[], None]) -> None:
            # Not before signals are heard: who waits for the file may send one at once.
            nonlocal ready
            ready = True
            if port_file is not None:
                try:
                    write_port_file(port_file, names if monitor is None else [*names, _name(monitor.listening)])
                except ConfigurationError as error:
                    failures.append(error)
                    stop()
                    return
            if on_listening is not None:
                on_listening(names)

        with ExitStack() as stack:
            if metrics is not None and page is not None:
                from mailfront_io.monitor import in_thread

                monitor = _monitor(metrics, page, state)
                stack.enter_context(in_thread(monitor))
            run_driver(driver, loop, listeners, grace, started, reporter(log))
        for failure in failures:
            raise failure
    finally:
        for sock in sockets:
            sock.close()


def _say_serving(log: "Log", names: list[str]) -> None:
    log(f"Serving {', '.join(names)}")


def _page(listeners: list[tuple[str, str]]) -> "Page":
    from mailfront_io.metrics import Page

    return Page(listeners)


def _monitor(address: ListeningAddress, page: "Page", state: Callable[[], str]) -> "Monitor":
    """What tells of this process, which is the only one, at `address`. Raises `ConfigurationError`."""
    from mailfront_io.metrics import Totals
    from mailfront_io.monitor import Monitor

    try:
        listening = open_listener(address)
    except BadAddress as error:
        raise ConfigurationError(f"{error}: choose another with --metrics HOST:PORT") from None
    return Monitor(listening, lambda: Totals().text([page], 1), state)


def metered(listener: Listener, meter: "Meter | None") -> Listener:
    """`listener`, its connections counted by `meter`, if there is one."""
    if meter is None:
        return listener
    connected, disconnected = meter.connected, meter.disconnected

    def admit(remote: tuple[str, int] | None) -> bytes | None:
        refusal = listener.admit(remote)
        if refusal is None:
            connected()
        return refusal

    def release(remote: tuple[str, int] | None) -> None:
        disconnected()
        listener.release(remote)

    return replace(listener, admit=admit, release=release)


def service_of(
    words: list[str], environment: Mapping[str, str], log: Callable[[str], None]
) -> "Service | LoginService":
    """The service of a line. Raises `ConfigurationError`."""
    if words[0] == "pop3":
        from mailfront_io.pop3_service import pop3_service_from_line

        return pop3_service_from_line(words, environment, log)
    if words[0] == "imap":
        from mailfront_io.imap_service import imap_service_from_line

        return imap_service_from_line(words, environment, log)
    return service_from_line(words, environment, log)


def session_factory(
    service: "Service | LoginService",
    local_host: str,
    listener: str = "",
    log: "Log | None" = None,
    meter: "Meter | None" = None,
) -> Callable[..., SessionCoroutine]:
    """What makes a session of each connection, and of what its client has said already, if anything. `log`: where each
    has an id and lines of its own, under the name of its `listener`; else the service's log has them all. `meter`:
    counts what happens."""
    above = facts_above(service.environment)
    if log is None:
        return lambda connection, received=b"": service.session(
            connection, above(facts(connection, local_host)), received=received
        )

    def make(connection: Connection, received: bytes = b"") -> SessionCoroutine:
        remote = connection.remote[0] if connection.remote else None
        own = log.session(listener or service.protocol, service.protocol, remote)
        return service.session(connection, above(facts(connection, local_host)), own.write, received, own.id, meter)

    return make


def reporter(log: Callable[[str], None]) -> Callable[[BaseException], None]:
    """What tells the log of an exception, with the place where it was raised."""
    def report(error: BaseException) -> None:
        log(f"Error: {described(error)}")

    return report


def import_driver(driver: str) -> ModuleType:
    """The driver of that name. Raises `ConfigurationError` if what it needs is not installed."""
    try:
        return import_module(f"mailfront_io.drivers.{'blocking' if driver == 'fork' else driver}")
    except ModuleNotFoundError as error:
        raise _missing(driver, error) from error


def _missing(driver: str, error: ModuleNotFoundError) -> ConfigurationError:
    extra = "fast" if error.name == "uvloop" else driver
    return ConfigurationError(f"the {driver} driver needs the package {error.name}: pip install 'mailfront[{extra}]'")


def run_driver(
    driver: str,
    loop: Loop,
    listeners: list[Listener],
    grace: float,
    started: Started,
    report: Callable[[BaseException], None],
) -> None:
    """Serve `listeners` under the driver of that name until stopped. Raises `ConfigurationError` if what it needs is
    not installed."""
    options: dict[str, object] = {"loop": loop} if driver == "asyncio" else {"fork": True} if driver == "fork" else {}
    run_server = import_driver(driver).run_server
    try:
        run_server(listeners, stop_grace=grace, on_started=started, report=report, **options)
    except ModuleNotFoundError as error:  # uvloop is asked for when the loop is made
        raise _missing(driver, error) from error


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def write_port_file(path: str, names: Sequence[str]) -> None:
    """Write one name a line, so that a reader sees all or nothing. Raises `ConfigurationError`."""
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write("".join(name + "\n" for name in names))
        os.rename(temporary, path)
    except OSError as error:
        raise ConfigurationError(
            f"--port-file {path}: {error.strerror}: name a file in a directory that can be written"
        ) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, and the exit code of a wrong configuration."""
        self.exit(EX_CONFIG, f"{self.prog}: {message}: see {self.prog} --help\n")


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="mailfront serve",
        usage="mailfront serve [OPTIONS] [-c FILE | PROTOCOL BACKEND [PLUGINS...] | pop3 maildir | imap PROGRAM...]",
        description="A server of its own for a mailfront line.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", dest="config", metavar="FILE", help="serve what this file says; mailfront config init writes a first one"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes; only with -c, in place of its key")
    parser.add_argument("--driver", choices=DRIVERS, help="default: asyncio, or what the file says")
    parser.add_argument("--loop", choices=LOOPS, help="asyncio's event loop; auto, the default: uvloop if installed")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="default: 127.0.0.1 and the development port; port 0: any free"
    )
    parser.add_argument("--port-file", metavar="FILE", help="gets one HOST:PORT line per listener")
    parser.add_argument(
        "--grace", type=float, metavar="SECONDS", help="for sessions at SIGTERM; default: 30"
    )
    parser.add_argument(
        "--max-connections", type=int, metavar="N", help=f"default: {DEFAULT.total}"
    )
    parser.add_argument(
        "--max-per-client", type=int, metavar="N", help=f"IPv4 or IPv6 /64; default: {DEFAULT.client}"
    )
    parser.add_argument(
        "--max-per-network", type=int, metavar="N", help=f"IPv4 /24 or IPv6 /48; default: {DEFAULT.network}"
    )
    parser.add_argument(
        "--metrics", metavar="HOST:PORT", help="where to tell /metrics, /healthz and /readyz; default: nowhere"
    )
    parser.add_argument(
        "--data", default="mailfront-data", metavar="DIR", help="of the development server; default: mailfront-data"
    )
    parser.add_argument("line", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.grace is not None and not 0 <= arguments.grace < float("inf"):
        parser.error(f"argument --grace: {arguments.grace} is no number of seconds")
    for name, most in (
        ("max_connections", None), ("max_per_client", None), ("max_per_network", None), ("workers", MAX_WORKERS)
    ):  # fmt: skip
        number = getattr(arguments, name)
        if number is not None and (number < 1 or (most is not None and number > most)):
            parser.error(f"argument --{name.replace('_', '-')}: at least 1{f', at most {most}' if most else ''}")
    if arguments.config is not None and (arguments.line or arguments.listen):
        parser.error("argument -c: the file says what is served, and where: take --listen and the line out")
    if arguments.config is not None and arguments.metrics:
        parser.error("argument --metrics: with -c the table [metrics] of the file says it")
    if arguments.metrics and arguments.driver == "fork":
        parser.error("argument --metrics: --driver fork needs -c FILE for it, where the supervisor answers")
    if arguments.metrics:
        try:
            arguments.metrics = parse_monitor_address(arguments.metrics)
        except BadAddress as error:
            parser.error(f"argument --metrics: {error}")
        if arguments.metrics.kind != "tcp":
            parser.error("argument --metrics: write HOST:PORT; unix: and systemd: need -c FILE")
    if arguments.config is None and arguments.workers is not None:
        parser.error("argument --workers: only with -c FILE")
    for word in arguments.line:
        if word.startswith("--"):
            parser.error(f"argument {word} stands behind PROTOCOL BACKEND: options come first")
    return arguments


def main(words: list[str]) -> int:
    """``mailfront serve``; returns the exit code."""
    arguments = _arguments(words)
    environment: Mapping[str, str] = dict(os.environ)
    if arguments.config is not None:
        return _serve_file(arguments, environment)
    from mailfront_io.server_log import ServerLog

    log = ServerLog("original" if environment.get("MAILFRONT_PROFILE") == "compat" else "lines")
    on_listening: Callable[[list[str]], None] | None = None
    try:
        if arguments.line:
            if len(arguments.line) < 2:
                raise ConfigurationError(
                    "a line is PROTOCOL BACKEND [PLUGINS...], such as: smtp echo accept; or: pop3 maildir; or: "
                    "imap PROGRAM"
                )
            service = service_of(arguments.line, environment, log)
            if service.load_error is not None:
                raise ConfigurationError(service.load_error.with_remedy)
            service.check_required()
            default_port = DEVELOPMENT_PORTS[service.protocol]
            host, port = parse_address(arguments.listen or f"127.0.0.1:{default_port}", default_port)
            endpoints = [Endpoint(service, host, port)]
            on_listening = partial(_say_serving, log)
        else:
            from mailfront_io.demo import Demo

            demo = Demo(arguments.data, environment, log)
            endpoints = demo.endpoints(arguments.listen)
            on_listening = demo.announce
        serve(
            endpoints,
            log,
            driver=arguments.driver or "asyncio",
            loop=arguments.loop or "auto",
            grace=30.0 if arguments.grace is None else arguments.grace,
            port_file=arguments.port_file,
            admission=Admission(
                log,
                Limits(
                    arguments.max_connections or DEFAULT.total,
                    arguments.max_per_client or DEFAULT.client,
                    arguments.max_per_network or DEFAULT.network,
                ),
            ),
            on_listening=on_listening,
            metrics=arguments.metrics,
        )
    except ConfigurationError as error:
        sys.stderr.write(f"mailfront serve: {error}\n")
        return EX_CONFIG
    return 0


def _serve_file(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    from mailfront_io.config.reading import WrongConfiguration
    from mailfront_io.supervisor import Supervisor

    names = ("driver", "loop", "workers", "grace", "max_connections", "max_per_client", "max_per_network")
    overrides = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    try:
        return Supervisor(arguments.config, environment, overrides, arguments.port_file).run()
    except (WrongConfiguration, ConfigurationError) as error:
        sys.stderr.write(f"{error}\n")
        return EX_CONFIG
