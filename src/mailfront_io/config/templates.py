"""What ``mailfront config init --for PURPOSE`` writes: a first file for each purpose, with comments.

``{hostname}`` is the only thing that is filled in.
"""

from typing import Final

_HEAD: Final = """\
# {purpose}
#
#   mailfront config check {file}      what is wrong with it, and what is dangerous
#   mailfront config show {file}       every setting that is in force, and where it comes from
#   mailfront serve -c {file}          serve it; SIGHUP reads it again
#
# Settings of plugins and backends stand in [settings] for all listeners, or in [listener.settings] for the one above:
# the names of the configuration reference, in lower case. An environment variable of that name overrides its key.

"""

_SERVER: Final = """\
[server]
hostname = "{hostname}"         # in greetings and trace lines
# driver = "asyncio"            # or trio, blocking (threads), fork
# workers = 1                   # processes that share the listeners
# user = "mail"                 # who they run as, when started by root
# grace = 30                    # seconds that sessions have to end in at SIGTERM

[log]
# format = "lines"              # or json, or original
# file = "/var/log/mailfront.log"
"""

_TLS: Final = """\
certificate = "/etc/ssl/certs/{hostname}.pem"
key = "/etc/ssl/private/{hostname}.key"
"""

_USERS: Final = """\

# Who may log in. Make it, and its first user: mailfront user --database /var/lib/mailfront/users.sqlite add NAME
[store.users]
kind = "sqlite"
name = "/var/lib/mailfront/users.sqlite"
"""

_MX: Final = (
    _SERVER
    + """
[settings]
databytes = 52428800            # bytes in a message
maxrcpts = 100                  # recipients of a message

# Mail for our domains from everybody.
[[listener]]
name = "mx"
protocol = "smtp"
listen = [":25"]                # every address of this host, IPv4 and IPv6
"""
    + _TLS
    + """plugins = ["counters", "check-fqdn", "accept-domains", "add-received"]
backend = "queuedir"            # or smtp, lmtp, qmail, maildir

[listener.settings]
accept_domains = ["example.org", "example.net"]
queuedir = "/var/spool/mailfront"
"""
)

_SUBMISSION: Final = (
    _SERVER
    + _USERS
    + """
[settings]
databytes = 52428800            # bytes in a message
upstream = "127.0.0.1:25"       # who takes the mail from here
# tls_client_ca = "/etc/ssl/users-ca.pem"   # who certifies users that log in by certificate

# Mail from our users: STARTTLS on port 587, TLS from the first byte on port 465 (RFC 6409, RFC 8314).
[[listener]]
name = "submission"
protocol = "smtp"
listen = [":587"]
"""
    + _TLS
    + """store = "users"
plugins = ["authenticate", "require-auth", "submission", "counters", "add-received", "accept"]
backend = "smtp"

[[listener]]
name = "submissions"
protocol = "smtp"
listen = [":465"]
tls = "implicit"
"""
    + _TLS
    + """store = "users"
plugins = ["authenticate", "require-auth", "submission", "counters", "add-received", "accept"]
backend = "smtp"
"""
)

_POP3: Final = (
    _SERVER
    + _USERS
    + """
[settings]
maildir_root = "/var/mail/maildirs"     # the users' maildirs, each by the name of its user
# tls_client_ca = "/etc/ssl/users-ca.pem"   # who certifies users that log in by certificate

# STLS on port 110, TLS from the first byte on port 995.
[[listener]]
name = "pop3"
protocol = "pop3"
listen = [":110"]
"""
    + _TLS
    + """store = "users"

[[listener]]
name = "pop3s"
protocol = "pop3"
listen = [":995"]
tls = "implicit"
"""
    + _TLS
    + """store = "users"
"""
)

_LMTP: Final = (
    _SERVER
    + """
# Deliveries from the mail system of this host, on a unix socket.
[[listener]]
name = "lmtp"
protocol = "lmtp"
listen = ["unix:/run/mailfront/lmtp"]
# socket_mode = "0660"
plugins = ["counters", "accept-domains"]
backend = "maildir"

[listener.settings]
accept_domains = ["{hostname}"]
maildir_root = "/var/mail/maildirs"     # the users' maildirs, each by the name of its user
"""
)

_DEV: Final = """\
[server]
hostname = "localhost"

# Who may log in. Make it, and its first user, with: mailfront user add NAME
[store.users]
kind = "sqlite"
name = "mailfront-data/users.sqlite"

# Mail for anybody at localhost, for each in a maildir that is made when it is needed.
[[listener]]
name = "mail"
protocol = "smtp"
listen = ["127.0.0.1:2525"]
plugins = ["counters", "accept-domains", "add-received"]
backend = "maildir"

[listener.settings]
accept_domains = ["localhost"]
maildir_path = "mailfront-data/%d/%n"
maildir_create = true

# Takes everything, and throws it away.
[[listener]]
name = "sink"
protocol = "smtp"
listen = ["127.0.0.1:2526"]
plugins = ["counters", "accept"]
backend = "discard"

# The users fetch their mail. Without TLS, so that anything can be tried: never do this but on loopback.
[[listener]]
name = "pop3"
protocol = "pop3"
listen = ["127.0.0.1:2110"]
store = "users"

[listener.settings]
maildir_root = "mailfront-data/localhost"
auth_requires_tls = 0

# The same over IMAP, by Dovecot's imap (Debian: dovecot-imapd), which serves no mail to root.
[[listener]]
name = "imap"
protocol = "imap"
listen = ["127.0.0.1:2143"]
program = ["/usr/lib/dovecot/imap"]
store = "users"

[listener.settings]
maildir_root = "mailfront-data/localhost"
setup_env = "dovecot"
auth_requires_tls = 0
"""

TEMPLATES: Final = {
    "mx": ("Mail from the world, for our domains", _MX),
    "submission": ("Mail from our users, to anybody", _SUBMISSION),
    "pop3": ("Our users fetch their mail", _POP3),
    "lmtp": ("Deliveries from a mail system into maildirs", _LMTP),
    "dev": ("For trying things out, on loopback", _DEV),
}
"""By purpose: what it is for, and the file."""


def template(purpose: str, file: str, hostname: str) -> str:
    """The file for `purpose`, one of `TEMPLATES`."""
    title, body = TEMPLATES[purpose]
    return (_HEAD + body).format(purpose=title, file=file, hostname=hostname)
