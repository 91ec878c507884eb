"""The certificate of the servers in these tests, and a name server that knows the records of all sessions."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailfront_io.demo import make_certificate
from tests.conformance.outside import NameServer
from tests.conformance.session_file import load


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    make_certificate(str(path))
    return path


@pytest.fixture(scope="session", autouse=True)
def name_server() -> Iterator[None]:
    """The drivers of this process ask this one and no other; those of its children do, too."""
    before = os.environ.get("NAMESERVERS")
    with NameServer(record for session in load() for record in session.records) as server:
        os.environ["NAMESERVERS"] = server.address
        try:
            yield
        finally:
            os.environ.pop("NAMESERVERS")
            if before is not None:
                os.environ["NAMESERVERS"] = before
