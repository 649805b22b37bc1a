"""Training and test data as counted streams in the dataset's own order."""

from dualview_plugin.data.identity import KnownContent, SamplesDigest, known_content
from dualview_plugin.data.loaders import kept_generator, n_samples_in_order
from dualview_plugin.data.ranges import RangeResult, RangeStream
from dualview_plugin.data.samples import same_values
from dualview_plugin.data.test_inputs import Inputs, TestInputs, as_tensor
from dualview_plugin.data.training_data import TrainData, TrainingData

__all__ = [
    "Inputs",
    "KnownContent",
    "RangeResult",
    "RangeStream",
    "SamplesDigest",
    "TestInputs",
    "TrainData",
    "TrainingData",
    "as_tensor",
    "kept_generator",
    "known_content",
    "n_samples_in_order",
    "same_values",
]
