"""What do six methods hold responsible for the same decision?

One test digit that the network gets wrong and one that it gets right, each with the strongest proponents and opponents
of every method, in one figure. Run it with ``python -m examples.compare_methods_digits``.
"""

from __future__ import annotations

from pathlib import Path

import torch

from dualview_plugin import plot_training_points
from examples.digits import accuracy, load_digits, small_cnn, train
from examples.six_methods import six_methods

FIGURE = Path(__file__).parents[1] / "docs" / "six_methods_digits.png"


def main() -> None:
    digits = load_digits()
    torch.manual_seed(0)
    model = train(small_cnn(), digits.train)
    print(f"test accuracy of the network: {accuracy(model, digits.test):.3f}")
    decisions = model(digits.x_test).argmax(dim=1)
    is_right = decisions == digits.y_test
    shown = torch.stack([torch.argmin(is_right.int()), torch.argmax(is_right.int())])
    x = digits.x_test[shown]

    methods = six_methods(model, digits.train)
    proponents = [method.influence(x, k=4) for method in methods.values()]
    opponents = [method.influence(x, k=4, proponents=False) for method in methods.values()]
    answers = [f"is {digits.y_test[i]}, said {decisions[i]}" for i in shown]
    figure = plot_training_points(
        x.repeat_interleave(len(methods), dim=0),
        digits.train,
        by_digit(proponents),
        by_digit(opponents),
        train_labels=digits.train.tensors[1],
        test_labels=[f"{name}\n{answer}" for answer in answers for name in methods],
    )
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=70)
    print(f"figure: {FIGURE}")


def by_digit(results: list) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices and attributions of all methods, those of the first digit first."""
    stacked = (torch.stack(parts, dim=1).flatten(end_dim=1) for parts in zip(*results, strict=True))
    return tuple(stacked)


if __name__ == "__main__":
    main()
