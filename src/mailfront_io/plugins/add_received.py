"""add-received: the trace line in front of each message (RFC 5321 section 4.4)."""

from datetime import UTC, datetime

from mailfront_io.plugin import Kind, Plugin, Setting
from mailfront_io.spool import Spool

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class AddReceived(Plugin):
    """Adds a fixup line, ``$HEADER_ADD`` and the Received line, in that order. In a server, but not in the compat
    profile, the latter has the id of the session, as the log does."""

    name = "add-received"
    settings = (
        Setting("AUTH_ADD_RECEIVED", Kind.NUMBER, "0: none of it for clients that may relay", "1"),
        Setting("HEADER_ADD", Kind.TEXT, "header lines to add, separated by line feeds"),
        Setting("FIXUP_RECEIVED_HOST", Kind.TEXT, "the host name that the world should see, behind a NAT"),
        Setting("FIXUP_RECEIVED_IP", Kind.TEXT, "its IP address"),
    )

    def data_start(self, spool: Spool | None) -> None:
        """The lines are made when the message begins."""
        session = self.session
        trusted = session.authenticated or session.getenv("RELAYCLIENT") is not None
        if trusted and session.first_number("AUTH_ADD_RECEIVED") == 0:
            return
        when = datetime.fromtimestamp(int(session.clock.time()), UTC)
        date = f"{when.day:02} {_MONTHS[when.month - 1]} {when:%Y %H:%M:%S} -0000"
        added = session.getenv("HEADER_ADD")
        if session.profile.name != "compat":
            added = added or None  # an empty line would end the header
        lines = self._fixup(date) + (added + "\n" if added is not None else "") + self._received(date)
        session.add_lines(lines.encode("utf-8", "surrogateescape"))

    def _ip(self, address: str) -> str:
        is_ipv6 = self.session.link.upper() == "TCP6"
        if self.session.profile.name != "compat":
            is_ipv6 = ":" in address
        return "IPv6:" + address if is_ipv6 else address

    def _fixup(self, date: str) -> str:
        session = self.session
        host, ip = session.local_host, session.local_ip
        fixup_host, fixup_ip = session.getenv("FIXUP_RECEIVED_HOST"), session.getenv("FIXUP_RECEIVED_IP")
        if not (host and ip and fixup_host and fixup_ip):
            return ""
        if host.lower() == fixup_host.lower() and ip.lower() == fixup_ip.lower():
            return ""
        return (
            f"Received: from {host} ({host} [{self._ip(ip)}])\n  by {fixup_host} ([{self._ip(fixup_ip)}]); {date}\n"
        )

    def _received(self, date: str) -> str:
        session = self.session
        host = session.remote_host
        ip = self._ip(session.remote_ip) if session.remote_ip else None
        helo = session.strings.get("helo_domain")
        if helo is None:
            helo = host or ip or "unknown"
        known = " ".join(filter(None, (host, f"[{ip}]" if ip else None)))
        local_ip = self._ip(session.local_ip) if session.local_ip else None
        by = session.local_host or local_ip or "unknown"
        return (
            f"Received: from {helo}{f' ({known})' if known else ''}\n"
            f"  by {by}{f' ([{local_ip}])' if local_ip else ''}\n"
            f"  with {self._protocol()} via {session.link}{self._id()}; {date}\n"
        )

    def _id(self) -> str:
        """The session, as the log calls it: so both can be found from the message."""
        session = self.session
        return f" id {session.id}" if session.id and session.profile.name != "compat" else ""

    def _protocol(self) -> str:
        """RFC 3848: S for TLS and A for authentication; RFC 6531 section 4.3: UTF8SMTP for ESMTP. But not in the compat
        profile."""
        name = self.session.protocol_name
        if self.session.profile.name == "compat" or name not in ("ESMTP", "LMTP"):
            return name
        sender = self.session.envelope.sender
        if sender is not None and sender.options.smtputf8:
            name = "UTF8LMTP" if name == "LMTP" else "UTF8SMTP"
        return name + ("S" if self.session.tls else "") + ("A" if self.session.authenticated else "")
