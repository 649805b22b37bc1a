"""The exception tree: one root, and the built-in class that a caller would expect beside it."""

from __future__ import annotations


class DualViewError(Exception):
    """Root of every error that this package raises on purpose."""


class _ParameterError(DualViewError):
    """A parameter that breaks its constraint; the message names parameter, owner, constraint and value."""

    def __init__(self, parameter: str, owner: str, constraint: str, value: object) -> None:
        self.parameter, self.owner, self.constraint, self.value = parameter, owner, constraint, value
        super().__init__(f"{parameter} of {owner} must be {constraint}, got {value}")

    def __reduce__(self) -> tuple[type[_ParameterError], tuple[str, str, str, object]]:
        return type(self), (self.parameter, self.owner, self.constraint, self.value)


class InvalidValueError(_ParameterError, ValueError):
    """A parameter of the right type has a value that cannot work."""


class InvalidTypeError(_ParameterError, TypeError):
    """A parameter has a type that cannot work."""


class DivergenceError(DualViewError, RuntimeError):
    """An iteration diverged; no result is returned."""


class StaleFitError(DualViewError, RuntimeError):
    """The network or the training data are no longer those of the fit; the message says what changed."""


class MissingDependencyError(DualViewError, ImportError):
    """An optional package that the call needs is not installed; the message names the command that installs it."""


class ConvergenceWarning(UserWarning):
    """An iteration stopped before its tolerance; the result is returned with its figures."""


class ConservationWarning(UserWarning):
    """Relevance is not conserved in a network; the result is returned, and can be off by a factor."""


class RandomDataWarning(UserWarning):
    """The training data differ from one reading to the next; attributions are those of one reading."""


class RandomNetworkWarning(UserWarning):
    """The network draws random numbers in eval mode; attributions are those of single draws."""


class SparseAttributionWarning(UserWarning):
    """A test point has fewer training points with an attribution other than zero than were asked for."""


class PrecisionWarning(UserWarning):
    """Values are too small for the precision of the result; the message says which call keeps them."""


class LeftOutWarning(UserWarning):
    """A method counts some layers alone, and the network has others; the message names them."""


class CacheWarning(UserWarning):
    """An entry of the cache cannot be read or written; its values are computed."""


class NotApplicableWarning(UserWarning):
    """A metric does not apply to a method and scores NaN."""
