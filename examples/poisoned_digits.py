"""Which method finds wrong labels in the training data first?

Three labels in ten are changed to another class, the network is trained on that, and each method ranks the training
points: by the magnitude of what they contribute to 200 test digits, and by their influence on themselves. Draws the
curves of the first ranking. Run it with ``python -m examples.poisoned_digits``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import quantus
import torch

from dualview_plugin import LabelPoisoning, PoisonedLabels, plot_poisoning_curves
from examples.digits import accuracy, load_digits, small_cnn, train
from examples.six_methods import six_methods

FIGURE = Path(__file__).parents[1] / "docs" / "poisoning_curves_digits.png"


def main() -> None:
    digits = load_digits()
    poisoned = PoisonedLabels(digits.train, fraction=0.3, n_classes=10, seed=0)
    torch.manual_seed(0)
    model = train(small_cnn(), poisoned)
    n_poisoned = len(poisoned.poisoned_indices)
    print(f"{n_poisoned} of {len(poisoned)} labels are wrong; test accuracy: {accuracy(model, digits.test):.3f}")

    by_attributions = LabelPoisoning(poisoned.poisoned_indices)
    by_self_influence = LabelPoisoning(poisoned.poisoned_indices, ranking="self_influence")
    x = digits.x_test[:200]
    table = quantus.evaluate(
        metrics={"by attributions": by_attributions, "by self-influence": by_self_influence},
        xai_methods=six_methods(model, poisoned),
        model=model,
        x_batch=x.numpy(),
        y_batch=model(x).argmax(dim=1).numpy(),
        explain_func_kwargs={},
        agg_func=np.mean,
        return_as_df=True,
    )
    print("Label Poisoning (1: wrong labels come first, 0: last, 0.5: at random)")
    print(table.T.round(3).to_string())

    FIGURE.parent.mkdir(exist_ok=True)
    plot_poisoning_curves(by_attributions.curves, n_poisoned).savefig(FIGURE, dpi=80)
    print(f"figure: {FIGURE}")


if __name__ == "__main__":
    main()
