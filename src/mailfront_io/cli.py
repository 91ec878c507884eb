"""The command ``mailfront``: one-shot sessions, and the way to the others.

The one-shot form starts for every connection, so this module imports what that form needs and nothing
else; ``serve`` and ``send`` live in modules of their own and are imported when asked for.
"""

import gc
import os
import sys

# New objects between two collections of garbage. While modules are imported there is none: to look for it every 700
# objects, as is usual, took 6 % of the start.
_COLLECTED = 20_000

EX_CONFIG = 78  # sysexits.h: something was found wrong with the configuration
EX_USAGE = 111  # the original's code for a temporary error, also of usage

USAGE = """\
usage: mailfront PROTOCOL BACKEND [PLUGINS...]     one session on standard input and output
       mailfront serve [OPTIONS] [PROTOCOL BACKEND [PLUGINS...]]     a server of its own
       mailfront send [OPTIONS] HOST[:PORT]        send one message
       mailfront serve -c FILE                     what a configuration file says; see mailfront config
       mailfront config init|check|show [FILE]     write one, check it, see what is in force
       mailfront plugins [NAME | new NAME]         what plugins there are, what one does; start your own
       mailfront rules check|test FILE [OPTIONS]   check mail rules, see what they do
       mailfront user add|passwd|list|remove|verify [NAME]     who may log in
       mailfront queue list|show|deliver [OPTIONS]     what the backend queuedir has written

PROTOCOL  smtp, lmtp, qmtp or qmqp
BACKEND   where mail goes: maildir, qmail, queuedir, smtp, lmtp, echo, discard, or module:Class
PLUGINS   what decides, in order, each a name or a colon-separated list: +name puts one in front,
          -name takes one out, -* all; without one that accepts, everything is refused

Settings are environment variables. In the first form the connection's facts are, too
(TCPREMOTEIP, TCPLOCALHOST, ...), as tcpserver and inetd wrappers set them. Try:

  printf 'EHLO me\\r\\nQUIT\\r\\n' | mailfront smtp echo accept
  mailfront serve --listen 127.0.0.1:2525 smtp echo accept
  mailfront serve                                 a demonstration server; says what to try
"""


def main() -> int:
    """The console script. Returns the exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        from mailfront_io.server import main as serve

        return serve(arguments[1:])
    if arguments[:1] == ["send"]:
        from mailfront_io.send import main as send

        return send(arguments[1:])
    if arguments[:1] == ["config"]:
        from mailfront_io.config.command import main as config

        return config(arguments[1:])
    if arguments[:1] == ["plugins"]:
        from mailfront_io.plugins_command import main as plugins

        return plugins(arguments[1:])
    if arguments[:1] == ["rules"]:
        from mailfront_io.rules_command import main as rules

        return rules(arguments[1:])
    if arguments[:1] == ["queue"]:
        from mailfront_io.queue_command import main as queue

        return queue(arguments[1:])
    if arguments[:1] == ["user"]:
        from mailfront_io.user_command import main as user

        return user(arguments[1:])
    if arguments[:1] in (["--help"], ["-h"], ["help"]):
        from mailfront_io.registry import backend_names, plugin_names

        sys.stdout.write(USAGE)
        sys.stdout.write(f"\nBackends: {', '.join(backend_names())}\nPlugins:  {', '.join(plugin_names())}\n")
        return 0
    if arguments[:1] == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"mailfront {version('mailfront')}\n")
        return 0
    return one_shot(arguments)


def one_shot(words: list[str]) -> int:
    """One session on descriptors 0 and 1, its log on 2."""
    gc.set_threshold(_COLLECTED)
    from mailfront_io.log import line_log
    from mailfront_io.settings import inherited_environment

    environment = inherited_environment()
    compat = environment.get("MAILFRONT_PROFILE") == "compat"
    log = line_log("mailfront", compat)
    if len(words) < 2:
        log("Fatal: Protocol or backend name are missing from the command line")
        if not compat:
            sys.stderr.write(USAGE)
        return EX_USAGE
    from mailfront_io.drivers.oneshot import run_descriptors
    from mailfront_io.service import PROTOCOLS, encoded, service_from_line
    from mailfront_io.settings import ConfigurationError, NoImmediateTLS
    from mailfront_proto.smtp.replies import Reply

    if words[0] not in PROTOCOLS:
        log(f"Fatal: 4.3.0 Error loading protocol {words[0]}: no such protocol")
        return 1
    try:
        service = service_from_line(words, environment, log)
    except NoImmediateTLS:
        return 1
    except ConfigurationError as error:
        log(f"Fatal: {error}")
        os.write(1, encoded(words[0], Reply(421, "4.3.0 This server is not configured correctly")))
        return EX_CONFIG
    service.alone = True
    return run_descriptors(service.session)


if __name__ == "__main__":
    sys.exit(main())
