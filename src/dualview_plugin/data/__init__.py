"""Training and test data as batches in the dataset's own order."""

from dualview_plugin.data.batches import (
    Inputs,
    TrainData,
    as_input_tensor,
    input_batches,
    labelled_batches,
    n_samples,
    ordered_loader,
)

__all__ = [
    "Inputs",
    "TrainData",
    "as_input_tensor",
    "input_batches",
    "labelled_batches",
    "n_samples",
    "ordered_loader",
]
