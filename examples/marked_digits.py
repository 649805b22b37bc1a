"""Which method traces a wrong decision to the training points that taught it?

Three in ten of the twos are marked, with a frame and a square in the middle, and the network learns that the mark means
"two". Every other test digit that it takes for a two once marked is explained: the answer lies in the marked twos.
Marked twos are easy to learn, so few of them are support points unless DualView's margin is soft: it runs at two C.
Run it with ``python -m examples.marked_digits``.
"""

from __future__ import annotations

import numpy as np
import quantus
import torch

from dualview_plugin import DomainMismatch, DualView, MarkedImages
from examples.digits import accuracy, load_digits, small_cnn, train
from examples.six_methods import six_methods

MARKED_CLASS = 2


def main() -> None:
    digits = load_digits()
    marking = MarkedImages(digits.train, target_class=MARKED_CLASS, fraction=0.3, seed=0)
    torch.manual_seed(0)
    model = train(small_cnn(), marking)
    n_marked = len(marking.marked_indices)
    print(f"test accuracy on digits without the mark: {accuracy(model, digits.test):.3f}")

    x, kept = marking.mismatched(model, digits.x_test.numpy(), digits.y_test.numpy())
    n_others = int((digits.y_test != MARKED_CLASS).sum())
    print(f"the mark turns {len(kept)} of {n_others} other test digits into a {MARKED_CLASS}; scored on 200 of them")
    x = x[:200]
    softer = DualView(model, "fc", marking, C=1e-3, show_progress=False)
    table = quantus.evaluate(
        metrics={
            "Domain Mismatch": DomainMismatch(marking.marked_indices),
            "AUPRC": DomainMismatch(marking.marked_indices, variant="auprc"),
        },
        xai_methods={"DualView, C = 1e-3": softer, **six_methods(model, marking)},
        model=model,
        x_batch=x,
        y_batch=np.full(len(x), MARKED_CLASS),
        explain_func_kwargs={},
        agg_func=np.mean,
        return_as_df=True,
    )
    print(table.T.round(3).to_string())
    print(f"a random attributor's expectation: {n_marked / len(marking):.3f}")


if __name__ == "__main__":
    main()
