"""The metrics in Quantus' own list."""

from __future__ import annotations

from typing import Any

from quantus.helpers.constants import AVAILABLE_METRICS

from dualview_plugin.metrics.base import DataAttributionMetric
from dualview_plugin.metrics.domain_mismatch import DomainMismatch
from dualview_plugin.metrics.identical_class import IdenticalClass
from dualview_plugin.metrics.identical_subclass import IdenticalSubclass
from dualview_plugin.metrics.label_poisoning import LabelPoisoning
from dualview_plugin.metrics.leave_one_out import LeaveOneOut
from dualview_plugin.metrics.linear_datamodeling import LinearDatamodeling
from dualview_plugin.metrics.mixed_datasets import MixedDatasets
from dualview_plugin.metrics.model_randomization import ModelRandomization
from dualview_plugin.metrics.sparsity import Sparsity
from dualview_plugin.metrics.top_cardinality import TopCardinality

CATEGORY = "Data Attribution"
_METRICS: tuple[type[DataAttributionMetric], ...] = (
    IdenticalClass,
    IdenticalSubclass,
    LabelPoisoning,
    DomainMismatch,
    LinearDatamodeling,
    LeaveOneOut,
    MixedDatasets,
    TopCardinality,
    Sparsity,
    ModelRandomization,
)


def register() -> None:
    """List the metrics in ``quantus.available_metrics()`` under "Data Attribution"; once or more often is the same.

    Example:
        >>> import quantus
        >>> from dualview_plugin import register
        >>> register()
        >>> quantus.available_metrics()["Data Attribution"][:4]
        ['Identical Class', 'Identical Subclass', 'Label Poisoning', 'Domain Mismatch']
    """
    available: Any = AVAILABLE_METRICS  # a plain dict, annotated as a read-only mapping
    available[CATEGORY] = {metric.name: metric for metric in _METRICS}
