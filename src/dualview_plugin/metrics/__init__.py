"""Metrics of data attributions for Quantus."""

from dualview_plugin.metrics.base import DataAttributionMetric
from dualview_plugin.metrics.domain_mismatch import DomainMismatch, domain_mismatch, domain_mismatch_auprc
from dualview_plugin.metrics.identical_class import IdenticalClass, identical_class
from dualview_plugin.metrics.identical_subclass import IdenticalSubclass
from dualview_plugin.metrics.label_poisoning import LabelPoisoning, label_poisoning, poisoning_curve
from dualview_plugin.metrics.linear_datamodeling import (
    LinearDatamodeling,
    linear_datamodeling_interval,
    linear_datamodeling_score,
)
from dualview_plugin.metrics.mixed_datasets import MixedDatasets, mixed_datasets
from dualview_plugin.metrics.model_randomization import ModelRandomization
from dualview_plugin.metrics.rank_correlation import rank_correlation
from dualview_plugin.metrics.registration import register
from dualview_plugin.metrics.share_in_top_k import share_in_top_k
from dualview_plugin.metrics.sources import data_attribution
from dualview_plugin.metrics.sparsity import Sparsity, sparsity
from dualview_plugin.metrics.subset_retraining import SubsetOutputs, retrain_on_subsets
from dualview_plugin.metrics.top_cardinality import TopCardinality, commonest_share, top_cardinality

__all__ = [
    "DataAttributionMetric",
    "DomainMismatch",
    "IdenticalClass",
    "IdenticalSubclass",
    "LabelPoisoning",
    "LinearDatamodeling",
    "MixedDatasets",
    "ModelRandomization",
    "Sparsity",
    "SubsetOutputs",
    "TopCardinality",
    "commonest_share",
    "data_attribution",
    "domain_mismatch",
    "domain_mismatch_auprc",
    "identical_class",
    "label_poisoning",
    "linear_datamodeling_interval",
    "linear_datamodeling_score",
    "mixed_datasets",
    "poisoning_curve",
    "rank_correlation",
    "register",
    "retrain_on_subsets",
    "share_in_top_k",
    "sparsity",
    "top_cardinality",
]
