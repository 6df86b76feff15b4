"""Datasets of the zoo reach on this machine what their cards say: `floppy zoo verify --quick`, one by one."""

import pytest

from floppy.dataset.zoo_index import Entry, entries
from floppy.zoo import verify

QUICK = [each for each in entries().values() if each.is_quick]
LONG = ("atari", "brax")
"""Families of which one episode takes the seconds that all others take together."""


CASES = [pytest.param(each, id=each.name, marks=pytest.mark.thorough if each.family in LONG else ()) for each in QUICK]


@pytest.mark.slow
@pytest.mark.parametrize("entry", CASES)
def test_a_dataset_reaches_its_cards_score(entry: Entry) -> None:
    for found in verify([entry.name], quick=True):
        if found.skipped:
            pytest.skip(found.skipped)
        assert not found.falls_short(len(QUICK)), found.as_json()
