"""Methods by name, for both bridges; needs neither quanda nor dattri."""

from __future__ import annotations

import pytest

from dualview_plugin import DualView, InvalidTypeError, InvalidValueError, dualda
from dualview_plugin.bridges.methods import method_class


def test_a_method_is_found_by_name_and_by_class() -> None:
    assert method_class("DualView", "owner") is DualView
    assert method_class(DualView, "owner") is DualView
    assert method_class("dualda", "owner") is dualda


def test_anything_else_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"method of owner must be one of .*'DualView'"):
        method_class("DualVeiw", "owner")
    with pytest.raises(InvalidTypeError, match="the name or the class of a method"):
        method_class(int, "owner")
