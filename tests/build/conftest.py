import pytest
from toybook import Toy, lay_out


@pytest.fixture
def toy(tmp_path) -> Toy:
    """A small book of one chapter, in a folder of its own."""
    return lay_out(tmp_path)
