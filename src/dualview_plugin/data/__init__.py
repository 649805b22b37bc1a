"""Training and test data as counted streams in the dataset's own order."""

from dualview_plugin.data.conversion import as_batch, as_tensor, as_torch_takes_it, with_arguments
from dualview_plugin.data.counted_stream import CountedStream
from dualview_plugin.data.identity import KnownContent, SamplesDigest, known_content
from dualview_plugin.data.labels import LabelFunction
from dualview_plugin.data.loaders import kept_generator, n_samples_in_order
from dualview_plugin.data.ranges import RangeResult, RangeStream
from dualview_plugin.data.seen_samples import SeenSamples
from dualview_plugin.data.test_inputs import Inputs, TestInputs
from dualview_plugin.data.training_data import TrainData, TrainingData

__all__ = [
    "CountedStream",
    "Inputs",
    "KnownContent",
    "LabelFunction",
    "RangeResult",
    "RangeStream",
    "SamplesDigest",
    "SeenSamples",
    "TestInputs",
    "TrainData",
    "TrainingData",
    "as_batch",
    "as_tensor",
    "as_torch_takes_it",
    "kept_generator",
    "known_content",
    "n_samples_in_order",
    "with_arguments",
]
