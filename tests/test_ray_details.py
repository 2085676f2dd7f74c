"""Details of Ray that are replaced for the length of a block."""

from __future__ import annotations

import pytest

from pipeline.ray_details import replaced


class Owner:
    """Has a detail."""

    @staticmethod
    def detail() -> str:
        return "its own"


def test_replaced__gives_back_what_was_there() -> None:
    with replaced((Owner, "detail", staticmethod(lambda: "another"))):
        assert Owner.detail() == Owner().detail() == "another"
    assert Owner.detail() == Owner().detail() == "its own"
    with pytest.raises(ValueError), replaced((Owner, "detail", None)):  # noqa: PT011
        raise ValueError
    assert Owner.detail() == "its own"


def test_replaced__a_detail_that_is_not_there_is_an_error_and_nothing_is_replaced() -> None:
    with pytest.raises(KeyError, match="no_such"), replaced((Owner, "detail", None), (Owner, "no_such", None)):
        raise AssertionError
    assert Owner.detail() == "its own"
