"""Constructor arguments that an object remembers: assigned to, they are validated; with another network, rebuilt."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Iterator
from typing import Any

from torch import nn

from dualview_plugin.errors import InvalidTypeError

# Arguments that a saved object gets anew.
_NOT_SAVED = {
    *("model", "final_fc_layer", "train_dataset", "device", "cache_dir", "show_progress", "forward", "label_fn"),
    "checkpoints",
}
# Those, and arguments on which no value depends: what may be given when a file is loaded.
LOAD_OPTIONS = _NOT_SAVED - {"model", "final_fc_layer", "train_dataset"} | {"batch_size", "memory_budget"}
# Saved arguments on which what is kept in a store does not depend.
WITHOUT_EFFECT = {"batch_size"}


class RememberingMeta(ABCMeta):
    """Classes whose objects keep the arguments that they were made with, as ``_arguments``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """The object, with its arguments by name."""
        made = super().__call__(*args, **kwargs)
        bound = inspect.signature(cls.__init__).bind(made, *args, **kwargs)  # type: ignore[misc]
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])  # less self
        for parameter in bound.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name, {}))
            if parameter.kind is parameter.VAR_POSITIONAL:
                arguments.update(zip(cls._positional_names(), arguments.pop(parameter.name, ()), strict=False))
        vars(made)["_arguments"] = arguments
        vars(made)["_assignable"] = frozenset({*arguments, *cls._keyword_names()})
        return made

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's as users call it, with the keyword arguments that it passes on.

        Where these are typed, as ``**common: Unpack[CommonOptions]``, they are those of the constructor that passes
        none on; else those of the next one.
        """
        positional: dict[str, inspect.Parameter] = {}
        keywords: dict[str, inspect.Parameter] = {}
        typed = False
        for parameters in cls._constructors():
            passed_on = [parameter for parameter in parameters if parameter.kind is parameter.VAR_KEYWORD]
            if typed and passed_on:
                continue
            for parameter in parameters:
                if parameter.kind is parameter.KEYWORD_ONLY:
                    keywords.setdefault(parameter.name, parameter)
                elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                    positional.setdefault(parameter.name, parameter)
            typed = any("Unpack" in str(parameter.annotation) for parameter in passed_on)
        return inspect.Signature([*positional.values(), *keywords.values()])

    def _keyword_names(cls) -> set[str]:
        """The keyword arguments of the constructor and of those that it passes ``**common`` on to."""
        constructors = cls._constructors()
        return {p.name for parameters in constructors for p in parameters if p.kind is p.KEYWORD_ONLY}

    def _constructors(cls) -> Iterator[list[inspect.Parameter]]:
        """The parameters, less self, of the constructor and of those that keyword arguments are passed on to."""
        for base in cls.__mro__:
            if "__init__" in vars(base):
                parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
                yield parameters
                if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                    return

    def _positional_names(cls) -> list[str]:
        """What a constructor that passes ``*args`` on calls its positional arguments: the names of the nearest base."""
        for base in cls.__mro__:
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
            if parameters and all(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters):
                return [parameter.name for parameter in parameters]
        return []


class Remembering(metaclass=RememberingMeta):
    """Assigning to a constructor argument makes the object anew: the value is validated, and what was learned is gone.

    Learned state has other names, so that it is assigned as usual.
    """

    _arguments: dict[str, Any]

    def __setattr__(self, name: str, value: Any) -> None:
        name = "model" if name == "forward_func" and "_arguments" in vars(self) else name
        arguments = vars(self).get("_arguments", {})
        if name not in vars(self).get("_assignable", ()):
            super().__setattr__(name, value)
            return
        fresh = type(self)(**{**arguments, name: value})
        vars(self).clear()
        vars(self).update(vars(fresh))

    def rebuilt(self, model: nn.Module) -> Any:
        """An object of the same arguments for another network, in which modules are found by their old names."""
        old: nn.Module = self._arguments["model"]
        names = {id(module): name for name, module in old.named_modules() if name}
        arguments = {name: _by_name(value, names) for name, value in self._arguments.items()}
        return type(self)(**{**arguments, "model": model})


def json_arguments(made: Remembering) -> dict[str, Any]:
    """The arguments that say what was computed, modules by name, as values that JSON has.

    Raises:
        InvalidTypeError: one has no such form.
    """
    old: nn.Module = made._arguments["model"]
    names = {id(module): name for name, module in old.named_modules() if name}
    chosen = {name: _by_name(value, names) for name, value in made._arguments.items() if name not in _NOT_SAVED}
    for name, value in chosen.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        if not all(part is None or isinstance(part, (bool, int, float, str)) for part in parts):
            constraint = "made of numbers, names and layers, to be saved"
            raise InvalidTypeError(name, type(made).__name__, constraint, type(value).__name__)
    return chosen


def _by_name(value: Any, names: dict[int, str]) -> Any:
    """A module, or those in a list, as dotted names; anything else as it is."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_by_name(part, names) for part in value]
    return names.get(id(value), value) if isinstance(value, nn.Module) else value
