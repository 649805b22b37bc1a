"""Where does DualView see its evidence? Quantus' own metrics score its input maps beside saliency and plain LRP.

Faithfulness, sparseness and randomisation on scikit-learn's digits, printed as a table; offline, in about a minute.
Run it with ``python -m examples.quantus_input_metrics_digits``.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import quantus
import torch
from torch import nn
from zennit.attribution import Gradient

from dualview_plugin import DualView, SurrogateRelevance, named_composite
from examples.digits import accuracy, load_digits, small_cnn, train

N_TEST = 40


def lrp(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
    """Plain LRP of the network's own logit, by the rules that DualView's map uses."""
    x = torch.as_tensor(np.asarray(inputs))
    start = nn.functional.one_hot(torch.as_tensor(np.asarray(targets)), 10)
    with Gradient(model, named_composite("epsilon_plus", model)) as attributor:
        _, relevance = attributor(x.clone(), lambda logits: start * logits.detach())
    return relevance.detach().numpy()


def input_metrics() -> dict[str, Any]:
    """One metric of each kind; all of them take the maps with their signs."""
    scores = {"abs": False, "normalise": True, "disable_warnings": True, "return_aggregate": False}
    return {
        "Faithfulness": quantus.FaithfulnessCorrelation(nr_runs=50, subset_size=72, perturb_baseline="black", **scores),
        "Sparseness": quantus.Sparseness(**{**scores, "abs": True}),
        "Randomisation": quantus.RandomLogit(num_classes=10, seed=0, **scores),
    }


def main() -> None:
    digits = load_digits()
    torch.manual_seed(0)
    model = train(small_cnn(), digits.train)
    print(f"test accuracy of the network: {accuracy(model, digits.test):.3f}")
    dualview = DualView(model, "fc", digits.train, C=0.05).fit()
    x = digits.x_test[:N_TEST]
    np.random.seed(0)  # noqa: NPY002 - Quantus draws its subsets of pixels from the global state
    warnings.filterwarnings("ignore", "Passed explain_func_kwargs will be ignored")
    table = quantus.evaluate(
        metrics=input_metrics(),
        xai_methods={
            "DualView, LRP of the surrogate": SurrogateRelevance(dualview, "epsilon_plus"),
            "DualView, gradient of the top pair": dualview,
            "LRP": lrp,
            "Saliency": {"xai_lib": "captum", "method": "Saliency"},
        },
        model=model,
        x_batch=x.numpy(),
        y_batch=model(x).argmax(dim=1).numpy(),
        explain_func_kwargs={},
        agg_func=np.nanmean,
        return_as_df=True,
    )
    print(table.round(3).to_string())
    print(
        "Faithfulness, Sparseness: higher is better; Randomisation: similarity to another class's map, lower is better"
    )


if __name__ == "__main__":
    main()
