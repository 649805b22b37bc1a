"""Zennit side: from attributions to the pixels that they rest on."""

from dualview_plugin.lrp.canonizers import propose_canonizers
from dualview_plugin.lrp.composites import named_composite
from dualview_plugin.lrp.function_rules import FunctionRules
from dualview_plugin.lrp.pairwise_relevance import PairwiseRelevance, RelevantPairs
from dualview_plugin.lrp.surrogate_relevance import SurrogateRelevance

__all__ = [
    "FunctionRules",
    "PairwiseRelevance",
    "RelevantPairs",
    "SurrogateRelevance",
    "named_composite",
    "propose_canonizers",
]
