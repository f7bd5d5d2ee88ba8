import pytest
from support.tied_rows import simulate


@pytest.fixture(scope="module")
def tied():
    return simulate()
