"""For whom a session asks a credential store, and what the programs find that a store starts for it."""

from collections.abc import Iterator, Mapping
from functools import cached_property

from mailfront_io.auth.store import Asker
from mailfront_io.child_environment import child_environment
from mailfront_io.session import Session


def asker_for(session: Session, deadline: float, default_domain: str = "", by_command: bool = False) -> Asker:
    """`session` asks, until `deadline`."""
    return Asker(deadline, session.exported_env(), default_domain, _ProgramEnvironment(session), by_command)


class _ProgramEnvironment(Mapping[str, str]):
    """What programs find: what any program of the session gets, and what is of CVM, whose modules have their settings,
    and the secret that is shared with them, in variables that begin with ``CVM_`` or in ``LOOKUP_SECRET``. It is put
    together when it is looked at: most stores start no program."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def _variables(self) -> dict[str, str]:
        settings = self._session.exported_env()
        of_cvm = {
            name: value
            for name, value in settings.items()
            if (name.startswith("CVM_") or name == "LOOKUP_SECRET") and value.isprintable()
        }
        return {**child_environment(self._session), **of_cvm}

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)
