"""What the tests of several files are given."""

import pytest

import stand_ins
from triarch import starters
from triarch.tour import bundled_sentences, explore, lessons, page


@pytest.fixture(scope="session")
def findings():
    """What the tour finds out with its bundled model."""
    return explore(None, bundled_sentences())


@pytest.fixture(scope="session")
def school(tmp_path_factory):
    """The tour's lessons, with stand-ins for the starters."""
    with pytest.MonkeyPatch.context() as patch:
        home = stand_ins.write(tmp_path_factory.mktemp("starters"))
        patch.setattr(starters, "home", lambda: home)
        return lessons.attend(lambda note: None)


@pytest.fixture(scope="session")
def html(findings, school):
    """The tour's page."""
    return page.render(findings, school)
