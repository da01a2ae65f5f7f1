from __future__ import annotations

import pytest


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Of module scope, because hypothesis refuses a fixture that is made once for all its examples."""
    return str(request.param)
