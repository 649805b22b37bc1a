"""Metrics of data attributions for Quantus."""

from dualview_plugin.metrics.base import DataAttributionMetric
from dualview_plugin.metrics.brittleness import brittleness
from dualview_plugin.metrics.domain_mismatch import DomainMismatch, domain_mismatch, domain_mismatch_auprc
from dualview_plugin.metrics.identical_class import IdenticalClass, identical_class
from dualview_plugin.metrics.identical_subclass import IdenticalSubclass
from dualview_plugin.metrics.label_poisoning import LabelPoisoning, label_poisoning, poisoning_curve
from dualview_plugin.metrics.leave_one_out import LeaveOneOut, leave_one_out_correlation, leave_one_out_effects
from dualview_plugin.metrics.linear_datamodeling import (
    LinearDatamodeling,
    linear_datamodeling_interval,
    linear_datamodeling_score,
)
from dualview_plugin.metrics.mixed_datasets import MixedDatasets, mixed_datasets
from dualview_plugin.metrics.model_randomization import ModelRandomization
from dualview_plugin.metrics.rank_correlation import rank_correlation
from dualview_plugin.metrics.registration import register
from dualview_plugin.metrics.retraining_curve import RetrainingCurve, retraining_curve, summed_attributions
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
    "LeaveOneOut",
    "LinearDatamodeling",
    "MixedDatasets",
    "ModelRandomization",
    "RetrainingCurve",
    "Sparsity",
    "SubsetOutputs",
    "TopCardinality",
    "brittleness",
    "commonest_share",
    "data_attribution",
    "domain_mismatch",
    "domain_mismatch_auprc",
    "identical_class",
    "label_poisoning",
    "leave_one_out_correlation",
    "leave_one_out_effects",
    "linear_datamodeling_interval",
    "linear_datamodeling_score",
    "mixed_datasets",
    "poisoning_curve",
    "rank_correlation",
    "register",
    "retrain_on_subsets",
    "retraining_curve",
    "share_in_top_k",
    "sparsity",
    "summed_attributions",
    "top_cardinality",
]
