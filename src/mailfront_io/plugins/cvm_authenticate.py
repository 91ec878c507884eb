"""cvm-authenticate: SMTP AUTH against credential validation modules."""

from mailfront_io.auth import offer
from mailfront_io.auth.cvm import CVMStore
from mailfront_io.plugin import Kind, Plugin, Setting
from mailfront_io.session import Session


class CVMAuthenticate(Plugin):
    """Offers AUTH, and has the modules that the settings name asked. Recipients are looked up elsewhere."""

    name = "cvm-authenticate"
    settings = (
        Setting("CVM_SASL_PLAIN", Kind.TEXT, "the modules for PLAIN and LOGIN, a comma list"),
        Setting("CVM_SASL_LOGIN", Kind.TEXT, "the modules for LOGIN alone, where CVM_SASL_PLAIN is not set"),
        Setting("CVM_SASL_CRAM_MD5", Kind.TEXT, "the modules for CRAM-MD5"),
        Setting("CVM_ACCOUNT_SPLIT_CHARS", Kind.TEXT, "a login name is split at the last of these", "@"),
        Setting("CVM_LOOKUP_SECRET", Kind.TEXT, "what is shared with modules that want a secret"),
        Setting("CVM_RANDOM_BYTES", Kind.NUMBER, "octets of chance in packets by UDP, 8 to 64", "8"),
        *offer.SETTINGS,
    )

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        session.modules = CVMStore.from_settings(session.getenv, session.profile.name == "compat")

    def mechanisms(self) -> list[str]:
        """Those that modules are there for."""
        session = self.session
        required = session.profile.name == "compat" and session.getenv("AUTH_REQUIRES_TLS") is not None  # even 0
        return [] if required and session.tls is None else offer.offered_mechanisms(session)

    def helo(self, host: str, capabilities: list[str]) -> None:
        """Lists AUTH at the plugin's place."""
        names = self.mechanisms()
        if names and not (self.session.authenticated or self.session.anonymous):
            capabilities.append("AUTH " + " ".join(names))
