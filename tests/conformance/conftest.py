"""The certificate of the servers in these tests."""

from pathlib import Path

import pytest

from mailfront_io.demo import make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    make_certificate(str(path))
    return path
