"""The user's network as a guest: what leaves it untouched, where it lives, and which one it is."""

from dualview_plugin.network.activations import differentiable_at, only_point
from dualview_plugin.network.arithmetic import allow_autocast
from dualview_plugin.network.caller import Caller, Forward, checked_function
from dualview_plugin.network.guest import (
    evaluating,
    guest,
    kept_weights,
    note_writing,
    preserved_random_state,
    restored,
    rules_set_aside,
    seed_random_states,
    writes_to_parameters,
)
from dualview_plugin.network.identity import (
    byte_view,
    fingerprint,
    model_fingerprint,
    plain_tensors,
    relative_difference,
    same_outputs,
    tolerance,
    weights_checksum,
)
from dualview_plugin.network.modules import checked_model, decisions, layer_name
from dualview_plugin.network.placement import Placement, coarsest_type
from dualview_plugin.network.probabilities import are_probabilities, end_in_sigmoid
from dualview_plugin.network.snapshot import dataset_generators

__all__ = [
    "Caller",
    "Forward",
    "Placement",
    "allow_autocast",
    "are_probabilities",
    "byte_view",
    "checked_function",
    "checked_model",
    "coarsest_type",
    "dataset_generators",
    "decisions",
    "differentiable_at",
    "end_in_sigmoid",
    "evaluating",
    "fingerprint",
    "guest",
    "kept_weights",
    "layer_name",
    "model_fingerprint",
    "note_writing",
    "only_point",
    "plain_tensors",
    "preserved_random_state",
    "relative_difference",
    "restored",
    "rules_set_aside",
    "same_outputs",
    "seed_random_states",
    "tolerance",
    "weights_checksum",
    "writes_to_parameters",
]
