"""The pages are followed as a reader with a terminal would."""

import pytest
from doc_pages import environment
from ready_commands import IMPORTED, ReadyCommands


@pytest.fixture(scope="session")
def _ready_pages():
    ready = ReadyCommands(environment(), "run_page", [*IMPORTED, "numpy", "pint"])
    yield ready
    ready.close()


@pytest.fixture
def follow(_ready_pages):
    """Do what the blocks of a page say, in a new empty directory: ``follow(page, directory)``."""

    def follow(page, directory):
        directory.mkdir()
        return _ready_pages.run([page], cwd=directory, env=environment(), timeout=110)

    return follow
