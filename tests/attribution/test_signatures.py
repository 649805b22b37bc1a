"""What help() and the pages show of a constructor is what it takes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from dualview_plugin import DataAttribution, DualView, EKFACInfluence
from tests.attribution.method_factories import METHODS
from tests.worlds import small_world

CLASSES = sorted({type(make(small_world())) for make in METHODS.values()}, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_parameter_that_is_shown_is_taken_with_its_default(cls: type[DataAttribution]) -> None:
    parameters = inspect.signature(cls).parameters
    assert list(parameters)[:3] == ["model", "final_fc_layer", "train_dataset"]
    defaults = {name: part.default for name, part in list(parameters.items())[3:]}
    assert defaults["batch_size"] == 256
    assert inspect.Parameter.empty not in defaults.values()
    world = small_world()
    made = cls(world.model, world.final_fc_layer, world.train, **defaults)
    assert {name: made._arguments[name] for name in defaults} == defaults


def test_defaults_are_shown() -> None:
    assert inspect.signature(DualView).parameters["C"].default == 1e-3
    assert "normalize_train" not in inspect.signature(EKFACInfluence).parameters  # of its base, and not passed on


def test_a_class_of_the_users_own_shows_what_it_passes_on() -> None:
    class Own(DualView):
        def __init__(self, *args: Any, temperature: float = 2.0, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.temperature = temperature

    shown = inspect.signature(Own).parameters
    assert shown["temperature"].default == 2.0
    assert set(inspect.signature(DualView).parameters) < set(shown)
