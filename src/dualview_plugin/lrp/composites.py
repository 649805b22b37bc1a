"""Zennit's composites by name, with the canonizers that the network needs."""

from __future__ import annotations

from typing import Any

from torch import nn
from zennit.composites import COMPOSITES
from zennit.core import Composite

from dualview_plugin.errors import InvalidTypeError
from dualview_plugin.lrp.canonizers import propose_canonizers
from dualview_plugin.lrp.function_rules import Softmax
from dualview_plugin.validation import check_option


def named_composite(name: str, model: nn.Module, softmax: Softmax = "constant", **options: Any) -> Composite:
    """One of Zennit's composites, with the proposed canonizers for a network.

    Args:
        name: as Zennit registers it: ``"epsilon_plus"``, ``"epsilon_plus_flat"``, ``"epsilon_alpha2_beta1"``,
            ``"epsilon_alpha2_beta1_flat"``, ``"epsilon_gamma_box"``, ….
        model: the network, for :func:`propose_canonizers`.
        softmax: of a network with attention, ``"constant"``, which conserves relevance, or ``"taylor"``, the rule of
            AttnLRP; see :class:`FunctionRules`.
        **options: what else the composite takes: ``zero_params="bias"`` (biases then absorb no relevance), ``epsilon``,
            ``canonizers`` in place of the proposed ones; ``low`` and ``high``, the smallest and the largest pixel
            value, for ``"epsilon_gamma_box"``.

    Raises:
        InvalidValueError: Zennit has no composite of this name.
        InvalidTypeError: the options lack one that the composite needs, or have one that it does not take.

    Note:
        A name that ends in ``_flat`` gives the first linear layer a rule of its own. In networks of token embeddings,
        such as BERT, that is a projection of queries and not the first layer: take ``"epsilon_plus"`` there.

    Example:
        >>> from torch import nn
        >>> from dualview_plugin import named_composite
        >>> composite = named_composite("epsilon_gamma_box", nn.Linear(5, 3), low=0.0, high=1.0, zero_params="bias")
        >>> type(composite).__name__
        'EpsilonGammaBox'
    """
    check_option(name, "name", "named_composite", tuple(sorted(COMPOSITES)))
    options = {"canonizers": propose_canonizers(model, softmax), **options}
    try:
        return COMPOSITES[name](**options)
    except TypeError as error:
        raise InvalidTypeError("options", "named_composite", f"what {name!r} takes", str(error)) from error


def as_composite(composite: Composite | str, model: nn.Module, owner: str) -> Composite:
    """A composite as it is, or the one of this name for the network."""
    if isinstance(composite, str):
        check_option(composite, "composite", owner, tuple(sorted(COMPOSITES)))
        return named_composite(composite, model)
    if not isinstance(composite, Composite):
        raise InvalidTypeError("composite", owner, "a composite of Zennit or its name", type(composite).__name__)
    return composite
