"""The networks of the paper's experiments."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock


class PaperCNN(nn.Sequential):
    """The paper's MNIST network: convolutions with 5, 10, 5 channels, then 500, 100, ``n_classes`` units; no biases."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(1, 5, 3, bias=False),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(5, 10, 3, bias=False),
                relu2=nn.ReLU(),
                conv3=nn.Conv2d(10, 5, 3, bias=False),
                relu3=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(5 * 22 * 22, 500, bias=False),
                relu4=nn.ReLU(),
                fc2=nn.Linear(500, 100, bias=False),
                relu5=nn.ReLU(),
                fc=nn.Linear(100, n_classes, bias=False),
            )
        )


class CifarResNet(ResNet):
    """torchvision's ResNet-18 for 32 × 32 pixels: first convolution 3 × 3, no first pooling.

    ``width`` is the number of channels of the first stage, 64 in the standard network; each later stage doubles it.
    """

    def __init__(self, n_classes: int = 10, width: int = 64) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=n_classes)
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity()
        for stage in range(4):
            layer = self._make_layer(BasicBlock, width * 2**stage, 2, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = nn.Linear(width * 8, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # a step on the CPU takes three quarters of the time
