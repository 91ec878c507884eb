"""What the tests with peers share."""

from collections.abc import Iterator

import pytest

from tests.peers.one_shot import OneShot


@pytest.fixture(scope="module")
def one_shot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneShot]:
    """Our programs, at the price of a fork."""
    with OneShot(tmp_path_factory.mktemp("one-shot")) as server:
        yield server
