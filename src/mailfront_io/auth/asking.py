"""For whom a session asks a credential store, and what the programs find that a store starts for it."""

from mailfront_io.auth.store import Asker
from mailfront_io.child_environment import child_environment
from mailfront_io.session import Session


def asker_for(session: Session, deadline: float, default_domain: str = "") -> Asker:
    """`session` asks, until `deadline`. Programs get what any program of the session gets, and what is of CVM: modules
    have their settings, and the secret that is shared with them, in variables that begin with ``CVM_``."""
    settings = session.exported_env()
    of_modules = {name: value for name, value in settings.items() if name.startswith("CVM_") and value.isprintable()}
    return Asker(deadline, settings, default_domain, {**child_environment(session), **of_modules})
