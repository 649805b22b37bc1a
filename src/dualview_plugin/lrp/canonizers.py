"""Which canonizers a network needs before rules of LRP mean what they say."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from zennit.canonizers import Canonizer, SequentialMergeBatchNorm
from zennit.core import collect_leaves
from zennit.torchvision import ResNetCanonizer
from zennit.types import BatchNorm, Linear


def propose_canonizers(model: nn.Module) -> list[Canonizer]:
    """The canonizers for a network of torchvision's ResNet or VGG kind, or a sequential one.

    Args:
        model: the network; it is only looked at.

    Returns:
        ``[ResNetCanonizer()]`` if it has residual blocks of torchvision's ResNets: their sums become modules, and batch
        norms are merged into the convolutions before them. ``[SequentialMergeBatchNorm()]``, which is all that Zennit's
        canonizer for VGG is, if a batch norm stands right behind a linear or convolutional layer. Else ``[]``.

    Note:
        Merging goes by the order in which modules were assigned to their parents. Residual sums of any other origin are
        not found here; :func:`dualview_plugin.features.propagate` warns of them.

    Example:
        >>> from torchvision.models import resnet18
        >>> [type(canonizer).__name__ for canonizer in propose_canonizers(resnet18())]
        ['ResNetCanonizer']
    """
    if any(isinstance(module, (BasicBlock, Bottleneck)) for module in model.modules()):
        return [ResNetCanonizer()]
    leaves = pairwise(collect_leaves(model))
    if any(isinstance(leaf, Linear) and isinstance(following, BatchNorm) for leaf, following in leaves):
        return [SequentialMergeBatchNorm()]
    return []
