"""Does a method see digits where the network was only taught pairs of digits?

The digits are grouped in pairs, {0, 1}, {2, 3} and so on, and the network is trained on the pairs alone. A method that
follows what the network learned, and not just its outputs, should still find training points of the very same digit.
Run it with ``python -m examples.grouped_digits``.
"""

from __future__ import annotations

import numpy as np
import quantus
import torch

from dualview_plugin import GroupedClasses, IdenticalClass, IdenticalSubclass
from examples.digits import load_digits, small_cnn, train
from examples.six_methods import six_methods

PAIRS = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def main() -> None:
    digits = load_digits()
    grouped = GroupedClasses(digits.train, groups=PAIRS)
    torch.manual_seed(0)
    model = train(small_cnn(n_classes=grouped.n_classes), grouped)
    x, y = digits.x_test[:200], digits.y_test[:200]
    decisions = model(x).argmax(dim=1)
    pairs = torch.tensor([grouped.superclass(label) for label in y])
    print(f"the network tells the pairs apart in {(decisions == pairs).float().mean():.1%} of the test digits")

    table = quantus.evaluate(
        metrics={
            "Identical Class (pair)": IdenticalClass(),
            "Identical Subclass (digit)": IdenticalSubclass(grouped.subclasses, test_subclasses=y),
            "Identical Subclass, top 10": IdenticalSubclass(grouped.subclasses, test_subclasses=y, k=10),
        },
        xai_methods=six_methods(model, grouped),
        model=model,
        x_batch=x.numpy(),
        y_batch=decisions.numpy(),
        explain_func_kwargs={},
        agg_func=np.mean,
        return_as_df=True,
    )
    print(table.T.round(3).to_string())


if __name__ == "__main__":
    main()
