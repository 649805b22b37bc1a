"""Explain a trained network with DualView, score it in Quantus beside a saliency method and a random attributor.

Draws the strongest training points of a few test digits. Runs offline, in under a minute after installation.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import quantus
import torch

from dualview_plugin import DualView, IdenticalClass, RandomAttribution, plot_training_points
from dualview_plugin.errors import NotApplicableWarning
from examples.digits import accuracy, load_digits, small_cnn, train

FIGURE = Path(__file__).parents[1] / "docs" / "training_points_digits.png"


def main() -> None:
    digits = load_digits()
    torch.manual_seed(0)
    model = train(small_cnn(), digits.train)
    print(f"test accuracy of the network: {accuracy(model, digits.test):.3f}")

    # Fewer training points than the default C is for: each may weigh more.
    dualview = DualView(model, "fc", digits.train, C=0.05).fit()
    decisions = model(digits.x_test).argmax(dim=1)
    agreement = (dualview.surrogate_logits(digits.x_test).argmax(dim=1) == decisions).float().mean()
    print(
        f"DualView: {len(dualview.support_indices_)} of {dualview.n_train_} training points are support points, "
        f"relative duality gap {dualview.solution_.duality_gap:.0e}, "
        f"the surrogate decides as the network does on {agreement:.1%} of the test digits"
    )

    # A saliency map has no training points: our metric scores it NaN and says so once, as does the mean of NaNs.
    warnings.simplefilter("ignore", NotApplicableWarning)
    warnings.filterwarnings("ignore", "Mean of empty slice")
    warnings.filterwarnings("ignore", "Passed explain_func_kwargs will be ignored")
    table = quantus.evaluate(
        metrics={
            "Identical Class": IdenticalClass(),
            "Sparseness": quantus.Sparseness(abs=True, normalise=False, return_aggregate=False),
        },
        xai_methods={
            "DualView": dualview,
            "Random": RandomAttribution(model, "fc", digits.train),
            "Saliency": {"xai_lib": "captum", "method": "Saliency"},
        },
        model=model,
        x_batch=digits.x_test.numpy(),
        y_batch=decisions.numpy(),
        explain_func_kwargs={},
        agg_func=np.nanmean,
        return_as_df=True,
    )
    print(table.round(3))

    shown = shown_digits(decisions.numpy(), digits.y_test.numpy())
    inputs = digits.x_test[shown]
    figure = plot_training_points(
        inputs,
        digits.train,
        dualview.influence(inputs, k=5),
        dualview.influence(inputs, k=5, proponents=False),
        train_labels=dualview.train_labels_,
        test_labels=[f"is {digits.y_test[i]}\nsaid {decisions[i]}" for i in shown],
    )
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=80)
    print(f"figure: {FIGURE}")


def shown_digits(decisions: np.ndarray, labels: np.ndarray) -> list[int]:
    """Two test digits that the network gets wrong, if there are as many, and then right ones: four in all."""
    wrong, right = np.flatnonzero(decisions != labels), np.flatnonzero(decisions == labels)
    return [int(i) for i in [*wrong[:2], *right][:4]]


if __name__ == "__main__":
    main()
