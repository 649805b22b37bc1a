"""DualView in a benchmark of quanda: class detection, on a network and data of one's own.

It needs an environment of its own, see ``docs/howto/quanda.md``. Run it with ``python -m examples.in_quanda``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from quanda.benchmarks.downstream_eval import ClassDetection
from torch import nn
from torch.utils.data import Subset

from dualview_plugin.bridges.quanda import QuandaExplainer
from dualview_plugin.demo import load_digits, small_cnn, train


def main() -> dict[str, float]:
    digits = load_digits()
    torch.manual_seed(0)
    model = train(small_cnn(), digits.train)
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "weights.pt"
        torch.save(model.state_dict(), checkpoint)
        benchmark = ClassDetection(
            model=model,
            train_dataset=digits.train,
            eval_dataset=Subset(digits.test, range(100)),
            checkpoints=[str(checkpoint)],
            checkpoints_load_func=load_weights,
            use_predictions=True,
        )
        for method, options in (("DualView", {"C": 0.05}), ("RandomAttribution", {})):
            arguments = {"method": method, "final_fc_layer": "fc", **options}
            found = benchmark.evaluate(QuandaExplainer, arguments, batch_size=50)
            scores[method] = float(found["score"])
            print(f"class detection of {method}: {scores[method]:.3f}")
    return scores


def load_weights(model: nn.Module, path: Any) -> float:
    """Load a checkpoint; quanda expects the learning rate in return."""
    model.load_state_dict(torch.load(path))
    return 1.0


if __name__ == "__main__":
    main()
