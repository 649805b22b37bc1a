"""MNIST, CIFAR-10 and digits, each as tensors with its own normalisation."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import CIFAR10, MNIST

from examples.digits import load_digits

DEFAULT_ROOT = Path(os.environ.get("DUALVIEW_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class ImageData:
    """A training set and what the paper explains: the test set less the validation images.

    Attributes:
        name: of the data set.
        train: normalised images (n_train, channels, height, width) with labels.
        test: likewise.
        validation: 2,000 images of the original test set (digits: none), for choosing when to stop.
        mean: of each channel, (channels, 1, 1), that the normalisation took off.
        deviation: of each channel, that the normalisation divided by.
        class_names: one for each label.
    """

    name: str
    train: TensorDataset
    test: TensorDataset
    validation: TensorDataset
    mean: Tensor
    deviation: Tensor
    class_names: tuple[str, ...]

    def normalize(self, pixels: Tensor) -> Tensor:
        """Images with values from 0 to 1 in the scale that the network sees."""
        return (pixels - self.mean) / self.deviation

    def to_display(self, image: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`normalize` for one image."""
        return image * self.deviation.numpy() + self.mean.numpy()


def load(name: str, root: str | Path = DEFAULT_ROOT, *, download: bool = False) -> ImageData:
    """The data set "mnist", "cifar10" or "digits", which needs no ``root``; torchvision downloads what is missing."""
    if name == "digits":
        return _digits()
    return {"mnist": _mnist, "cifar10": _cifar10}[name](Path(root), download)


def _mnist(root: Path, download: bool) -> ImageData:
    parts = [MNIST(str(root), train=train, download=download) for train in (True, False)]
    pixels = [part.data[:, None].float() / 255 for part in parts]
    return _split("mnist", pixels, [part.targets for part in parts], tuple("0123456789"))


def _cifar10(root: Path, download: bool) -> ImageData:
    """CIFAR-10 of torchvision, or the JPEG copy of it if one lies in ``root``/cifar10."""
    if not (root / "cifar10" / "train.npz").exists():
        parts = [CIFAR10(str(root), train=train, download=download) for train in (True, False)]
        images = [torch.from_numpy(part.data).permute(0, 3, 1, 2).float() / 255 for part in parts]
        return _split("cifar10", images, [torch.tensor(part.targets) for part in parts], tuple(parts[0].classes))
    pixels, labels = [], []
    for part in ("train", "test"):
        with np.load(root / "cifar10" / f"{part}.npz") as stored:
            jpeg, offset = stored["jpeg"].tobytes(), stored["offset"]
            images = [np.asarray(Image.open(io.BytesIO(jpeg[a:b]))) for a, b in pairwise(offset)]
            labels.append(torch.from_numpy(stored["label"].astype(np.int64)))
        pixels.append(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return _split("cifar10", pixels, labels, names)


def _digits() -> ImageData:
    digits = load_digits()
    pixels, labels = zip(digits.train.tensors, digits.test.tensors, strict=True)
    return _split("digits", list(pixels), list(labels), tuple("0123456789"), n_validation=0)


def _split(
    name: str, pixels: list[Tensor], labels: list[Tensor], class_names: tuple[str, ...], n_validation: int = 2000
) -> ImageData:
    """Normalise by the training set's channels and take the validation images out of the test set, at random."""
    mean = pixels[0].mean(dim=(0, 2, 3))[:, None, None]
    deviation = pixels[0].std(dim=(0, 2, 3))[:, None, None]
    train, test = (TensorDataset((x - mean) / deviation, y) for x, y in zip(pixels, labels, strict=True))
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    validation, rest = order[:n_validation].sort().values, order[n_validation:].sort().values
    parts = [TensorDataset(*(tensor[index] for tensor in test.tensors)) for index in (rest, validation)]
    return ImageData(name, train, parts[0], parts[1], mean, deviation, class_names)
