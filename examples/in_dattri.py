"""DualView as an attributor of dattri, scored by dattri's own metric for wrong labels.

It needs dattri, see ``docs/howto/dattri.md``. Run it with ``python -m examples.in_dattri``.
"""

from __future__ import annotations

from typing import Any

import torch
from dattri.metric import mislabel_detection_auc
from dattri.task import AttributionTask
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from dualview_plugin import PoisonedLabels
from dualview_plugin.bridges.dattri import DattriAttributor
from dualview_plugin.demo import load_digits, small_cnn, train


def main() -> dict[str, float]:
    digits = load_digits()
    poisoned = PoisonedLabels(digits.train, fraction=0.1, n_classes=10)
    torch.manual_seed(0)
    model = train(small_cnn(), poisoned)

    def loss(parameters: Any, data: Any) -> Any:
        image, label = data
        output = torch.func.functional_call(model, parameters, image.unsqueeze(0))
        return cross_entropy(output, label.unsqueeze(0))

    task = AttributionTask(loss, model, checkpoints=model.state_dict())
    loader = DataLoader(poisoned, batch_size=256)
    is_wrong = torch.zeros(len(poisoned)).index_fill_(0, torch.from_numpy(poisoned.poisoned_indices), 1)
    areas = {}
    for method, options in (("DualView", {"C": 0.05}), ("InfluenceFunctions", {}), ("RandomAttribution", {})):
        attributor = DattriAttributor(task, method, "fc", **options)
        areas[method] = float(mislabel_detection_auc(attributor.self_attribute(loader), is_wrong)[0])
        print(f"wrong labels found by the self-influence of {method}, area: {areas[method]:.3f}")
    return areas


if __name__ == "__main__":
    main()
