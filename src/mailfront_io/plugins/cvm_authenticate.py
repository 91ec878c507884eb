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
        passwords, logins = session.getenv("CVM_SASL_PLAIN"), session.getenv("CVM_SASL_LOGIN")
        responses = session.getenv("CVM_SASL_CRAM_MD5") or ""
        if passwords or logins or responses:
            session.modules = CVMStore(passwords or logins or "", responses, login_only=not passwords)

    def mechanisms(self) -> list[str]:
        """Those that modules are there for."""
        return offer.offered_mechanisms(self.session)

    def helo(self, host: str, capabilities: list[str]) -> None:
        """Lists AUTH at the plugin's place."""
        names = offer.offered_mechanisms(self.session)
        if names and not (self.session.authenticated or self.session.anonymous):
            capabilities.append("AUTH " + " ".join(names))
