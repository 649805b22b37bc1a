"""Why this training image? Relevance of DualView's strongest pairs on MNIST, with the paper's network.

Draws docs/pairwise_relevance_mnist.png, for the first test digit that the network gets wrong. Reads MNIST from a folder
and trains for some minutes on a CPU: ``python -m examples.explain_pairs_mnist --root ../shared/data``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST

from benchmarks.networks import PaperCNN
from dualview_plugin import DualView, PairwiseRelevance, plot_pairwise_relevance
from examples.digits import accuracy, train
from examples.explain_pairs_digits import print_pairs

FIGURE = Path(__file__).parents[1] / "docs" / "pairwise_relevance_mnist.png"


def load_mnist(root: str, is_train: bool) -> TensorDataset:
    """MNIST's images with values from 0 to 1, (n, 1, 28, 28), and labels."""
    data = MNIST(root, train=is_train, download=False)
    return TensorDataset(data.data[:, None] / 255, data.targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="the folder that holds MNIST/raw")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    training, test = (load_mnist(options.root, is_train) for is_train in (True, False))
    torch.manual_seed(0)
    model = train(PaperCNN(), training, epochs=options.epochs)
    print(f"test accuracy of the network: {accuracy(model, test):.3f}")

    dualview = DualView(model, "fc", training).fit()
    relevance = PairwiseRelevance(dualview, "epsilon_plus_flat")  # no biases in this network: nothing to set aside
    x, labels = test.tensors
    with torch.no_grad():
        wrong = (model(x).argmax(dim=1) != labels).nonzero().flatten()[:1]
    strongest = relevance.attribute(x[wrong], k=6)[0]
    weakest = relevance.attribute(x[wrong], k=6, proponents=False)[0]
    print_pairs("proponents", strongest, dualview.train_labels_)
    print_pairs("opponents", weakest, dualview.train_labels_)

    figure = plot_pairwise_relevance(
        x[wrong][0],
        training,
        [strongest, weakest],
        train_labels=dualview.train_labels_,
        test_label=f"is {labels[wrong].item()}\nsaid {strongest.target}",
    )
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=80)
    print(f"figure: {FIGURE}")


if __name__ == "__main__":
    main()
