"""Why this training digit? Relevance of DualView's strongest pairs, in the pixels of the test and the training digit.

Draws docs/pairwise_relevance_digits.png. Runs offline, in under a minute after installation.
"""

from __future__ import annotations

from pathlib import Path

import torch

from dualview_plugin import DualView, PairwiseRelevance, RelevantPairs, named_composite, plot_pairwise_relevance
from examples.digits import accuracy, load_digits, small_cnn, train

FIGURE = Path(__file__).parents[1] / "docs" / "pairwise_relevance_digits.png"


def main() -> None:
    digits = load_digits()
    torch.manual_seed(0)
    model = train(small_cnn(), digits.train)
    print(f"test accuracy of the network: {accuracy(model, digits.test):.3f}")
    dualview = DualView(model, "fc", digits.train, C=0.05).fit()

    # Biases would absorb relevance; set aside, all of an attribution arrives in the pixels.
    composite = named_composite("epsilon_plus_flat", model, zero_params="bias")
    relevance = PairwiseRelevance(dualview, composite)
    wrong = (model(digits.x_test).argmax(dim=1) != digits.y_test).nonzero().flatten()[:1]
    x = digits.x_test[wrong]
    strongest = relevance.attribute(x, k=5)
    weakest = relevance.attribute(x, k=5, proponents=False)
    print_pairs("proponents", strongest[0], dualview.train_labels_)
    print_pairs("opponents", weakest[0], dualview.train_labels_)

    figure = plot_pairwise_relevance(
        x[0],
        digits.train,
        [strongest[0], weakest[0]],
        train_labels=dualview.train_labels_,
        test_label=f"is {digits.y_test[wrong].item()}\nsaid {strongest.target[0]}",
    )
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=80)
    print(f"figure: {FIGURE}")


def print_pairs(name: str, pairs: RelevantPairs, labels: torch.Tensor) -> None:
    """The pairs of one test digit, with the share of each attribution that arrives in the pixels of either image."""
    print(f"{name}:  training digit   label   attribution   conserved in the test digit, in the training digit")
    for index, attribution, (test, train_side) in zip(
        pairs.train_indices.tolist(), pairs.attribution.tolist(), pairs.conservation.tolist(), strict=True
    ):
        print(f"{index:26d} {labels[index].item():7d} {attribution:+13.3f} {test:14.3f} {train_side:26.3f}")


if __name__ == "__main__":
    main()
