import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main


@pytest.fixture
def run():
    """A function that runs a command line and returns its result."""
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])
