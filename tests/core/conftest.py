"""Keys and seeds that the tests of the core share."""

import pytest

from ironbound.core.keys import PrivateKey


@pytest.fixture(scope="session")
def private_keys() -> list[PrivateKey]:
    """Four different keys from fixed seeds."""
    return [PrivateKey.generate(bytes([number]) * 32) for number in range(1, 5)]
