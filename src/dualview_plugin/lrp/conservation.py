"""Whether the relevance that arrives in the pixels is the relevance that started, and a warning where it is not."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from zennit.core import BasicHook, ParamMod

from dualview_plugin.errors import ConservationWarning
from dualview_plugin.lrp.canonizers import layer_run
from dualview_plugin.lrp.module_calls import ModuleCall

# Largest loss relative to Σ_m |R_m|, beyond the shares of inactive units. Stabilizers alone take a few per cent.
_TOLERANCE = 0.2
# The same where biases take part: they absorb most of the relevance of a deep network, or add as much again.
_TOLERANCE_WITH_BIASES = 2.0
# Where a network's constants take part, but no biases, a loss above this share of the start is told.
_ABSORBED = 0.05
# Where biases take part, pairs with more than this share at inactive units are not judged: a pre-activation that its
# bias brings close to zero multiplies what goes to the unit.
_MOST_INACTIVE = 0.1


@dataclass(frozen=True)
class SideBalance:
    """Relevance that started and that arrived on one side of the pairs, each (n_pairs,).

    Attributes:
        start: Σ_m R_m.
        scale: Σ_m |R_m|.
        inactive: Σ |R_m| over the units with φ_m = 0, which may have nothing to hand their share to.
        arrived: Σ relevance of the pixels.
    """

    start: Tensor
    scale: Tensor
    inactive: Tensor
    arrived: Tensor

    def is_off(self, with_biases: bool) -> Tensor:
        """Whether more relevance is lost or made on the way than what has a harmless reason, (n_pairs,).

        Args:
            with_biases: whether biases or other constants absorb relevance.
        """
        loss = (self.arrived - self.start).abs()
        if with_biases:
            off = (loss > _TOLERANCE_WITH_BIASES * self.scale) & (self.inactive <= _MOST_INACTIVE * self.scale)
        else:
            off = loss > _TOLERANCE * self.scale + self.inactive
        return off | self._vanished() | ~self.arrived.isfinite()

    def _vanished(self) -> Tensor:
        """Whether next to nothing arrives, although the start is at most by half at inactive units, (n_pairs,)."""
        is_large = self.start.abs() > 0.5 * self.scale
        return (self.arrived.abs() < 0.01 * self.scale) & is_large & (self.inactive < 0.5 * self.scale)


def warn_unless_conserved(balances: Iterable[SideBalance], with_biases: bool, with_constants: bool = False) -> None:
    """Warn if relevance was lost or made on the way of any pair, beyond what has a harmless reason.

    Shares of both signs may nearly cancel, so that the loss is measured beside Σ_m |R_m|. It counts above 0.2, beyond
    the shares of inactive units. Where biases or other constants take part it counts above 2, and only if inactive
    units have less than a tenth of Σ_m |R_m|. A heatmap also counts if it all but vanishes: less than a hundredth of
    Σ_m |R_m| arrives, of a start that is at least half of it.

    Warns:
        ConservationWarning: how many pairs are off, and by how much; or how much a network's constants absorb.
    """
    sides = list(balances)
    arrived = torch.cat([side.arrived / side.start for side in sides])
    off = torch.cat([side.is_off(with_biases or with_constants) for side in sides])
    absorbed = arrived.isfinite() & ((arrived - 1).abs() > _ABSORBED)
    if off.any():
        message = (
            f"relevance is not conserved in {int(off.sum())} of {len(off)} heatmaps: {_span(arrived[off])} times what "
            "started at the features arrives in the pixels. Do not trust these heatmaps; RelevantPairs names the usual "
            "reasons"
        )
    elif with_constants and not with_biases and absorbed.any():
        message = (
            "parts of the network that do not depend on its input, such as a class token, or softmax's expansion, "
            f"absorb relevance in {int(absorbed.sum())} of {len(off)} heatmaps: {_span(arrived[absorbed])} times what "
            "started at the features arrives in the pixels"
        )
    else:
        return
    warnings.warn(message, ConservationWarning, stacklevel=levels_to_the_caller())


def levels_to_the_caller() -> int:
    """The stack level, for a warning in the function that asks, of the first line outside of this package."""
    package, levels = __name__.partition(".")[0], 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (package, "contextlib"):
        frame, levels = frame.f_back, levels + 1
    return levels


def _span(ratios: Tensor) -> str:
    """The smallest and the largest of some values, in words."""
    return f"{float(ratios.min()):.3g}" + (f" to {float(ratios.max()):.3g}" if len(ratios) > 1 else "")


def biases_take_part(calls: Iterable[ModuleCall]) -> bool:
    """Whether any rule lets a bias, or the shift of a merged batch norm, absorb relevance."""
    return any(isinstance(call.rule, BasicHook) and _has_bias(call) and _keeps_bias(call.rule) for call in calls)


def _has_bias(call: ModuleCall) -> bool:
    """The layer has a bias of its own or from the batch norm behind it."""
    runs = [layer_run(node) for node in call.output_nodes]
    return getattr(call.module, "bias", None) is not None or any(run is not None and run.norms for run in runs)


def _keeps_bias(rule: Any) -> bool:
    """The rule does not set biases to zero."""
    modifiers = [ParamMod.ensure(modifier) for modifier in rule.param_modifiers]
    return any("bias" not in (modifier.zero_params or ()) for modifier in modifiers if modifier.param_keys != [])
