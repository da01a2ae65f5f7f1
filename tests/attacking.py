"""Fixtures for the membership attack of runs: its trees take half the time of a small run, and few tests look at any.

``tests/evaluation`` tests the attack with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pymixunlearn.evaluation import membership

_TREES = membership.TREES


@pytest.fixture(scope="module", autouse=True)
def few_trees() -> Iterator[None]:
    """Attackers of this process have five trees, unless a test has the fixture ``all_trees``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "TREES", 5)
        yield


@pytest.fixture
def all_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attackers have all of their trees, for what is held against the numbers of another process or release."""
    monkeypatch.setattr(membership, "TREES", _TREES)
