"""Errors keep what they say when they travel between processes, and are the built-in errors that callers expect."""

from __future__ import annotations

import pickle

import pytest

from dualview_plugin.errors import DualViewError, InvalidTypeError, InvalidValueError


@pytest.mark.parametrize(("kind", "expected"), [(InvalidValueError, ValueError), (InvalidTypeError, TypeError)])
def test_a_pickled_error_says_the_same(kind: type[DualViewError], expected: type[Exception]) -> None:
    error = kind("C", "DualView", "a finite real number in (0, inf)", -1)
    restored = pickle.loads(pickle.dumps(error))
    assert type(restored) is kind
    assert str(restored) == str(error) == "C of DualView must be a finite real number in (0, inf), got -1"
    assert (restored.parameter, restored.value) == ("C", -1)
    with pytest.raises(expected):
        raise restored
    with pytest.raises(DualViewError):
        raise restored
