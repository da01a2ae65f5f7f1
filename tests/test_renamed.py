from __future__ import annotations

import sys
from types import ModuleType

import pytest

from pymixunlearn._renamed import moved, renamed


def test_an_old_name_gives_the_new_object_and_says_the_new_name() -> None:
    find = renamed("pymixunlearn.old", {"Mistake": "pymixunlearn.errors:UserError", "errors": "pymixunlearn.errors"})
    with pytest.warns(DeprecationWarning, match=r"pymixunlearn\.old\.Mistake is now pymixunlearn\.errors\.UserError"):
        found = find("Mistake")
    from pymixunlearn import errors

    assert found is errors.UserError
    with pytest.warns(DeprecationWarning, match=r"is now pymixunlearn\.errors;"):
        assert find("errors") is errors


def test_a_name_that_never_was_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        renamed("pymixunlearn.old", {})("nothing")


def test_a_moved_module_is_the_new_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymixunlearn.formerly", ModuleType("pymixunlearn.formerly"))
    with pytest.warns(DeprecationWarning, match=r"pymixunlearn\.formerly is now pymixunlearn\.errors"):
        moved("pymixunlearn.formerly", "pymixunlearn.errors")
    assert sys.modules["pymixunlearn.formerly"] is sys.modules["pymixunlearn.errors"]
