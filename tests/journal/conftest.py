from collections.abc import Iterator
from pathlib import Path

import pytest

from incomingd.journal import Journal
from incomingd.journal.catalogue import Catalogue
from incomingd.journal.delays import Delays
from incomingd.journal.uploads import Uploads


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


@pytest.fixture
def uploads(journal: Journal) -> Uploads:
    return Uploads(journal)


@pytest.fixture
def delays(journal: Journal) -> Delays:
    return Delays(journal)


@pytest.fixture
def catalogue(journal: Journal) -> Catalogue:
    return Catalogue(journal)
