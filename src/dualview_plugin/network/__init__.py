"""The user's network as a guest: what leaves it untouched, where it lives, and which one it is."""

from dualview_plugin.network.guest import evaluating, guest, guest_steps, preserved_random_state, restored
from dualview_plugin.network.identity import (
    fingerprint,
    model_fingerprint,
    relative_difference,
    same_outputs,
    tolerance,
    weights_checksum,
)
from dualview_plugin.network.kept_weights import kept_weights
from dualview_plugin.network.modules import checked_model, decisions
from dualview_plugin.network.placement import Placement

__all__ = [
    "Placement",
    "checked_model",
    "decisions",
    "evaluating",
    "fingerprint",
    "guest",
    "guest_steps",
    "kept_weights",
    "model_fingerprint",
    "preserved_random_state",
    "relative_difference",
    "restored",
    "same_outputs",
    "tolerance",
    "weights_checksum",
]
