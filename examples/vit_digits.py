"""Which training digits made a vision transformer say this, and which patches of the test digit?

torchvision's ``VisionTransformer``, small, trained in seconds on scikit-learn's digits. The map is taken at the
patches, gradient × activation. Run it with ``python -m examples.vit_digits [FIGURE]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import quantus
import torch
from torchvision.models import VisionTransformer

from dualview_plugin import (
    DualView,
    GradientSimilarity,
    IdenticalClass,
    RandomAttribution,
    TopCardinality,
    plot_training_points,
)
from examples.digits import accuracy, load_digits, train

FIGURE = Path(__file__).parents[1] / "docs" / "vit_digits.png"


def small_vit() -> VisionTransformer:
    return VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
    )


def rgb(data: torch.utils.data.TensorDataset) -> torch.utils.data.TensorDataset:
    """Three channels, as the network wants them."""
    return torch.utils.data.TensorDataset(data.tensors[0].expand(-1, 3, -1, -1), data.tensors[1])


def main(figure: str | Path = FIGURE, n_train: int = 1297, epochs: int = 15) -> object:
    digits = load_digits(size=16)
    training, test = rgb(digits.train), rgb(digits.test)
    training = torch.utils.data.TensorDataset(*(part[:n_train] for part in training.tensors))
    torch.manual_seed(0)
    model = train(small_vit(), training, epochs=epochs, show_progress=False)
    print(f"accuracy {accuracy(model, test):.3f}")
    x = test.tensors[0]
    method = DualView(model, "heads.head", training, C=0.01, show_progress=False)  # the two lines for torchvision:
    decisions = method.decisions(x)  # a network, the name of its last layer, a dataset

    plot_training_points(
        x[:4],
        training,
        method.influence(x[:4], k=4),
        method.influence(x[:4], k=4, proponents=False),
        train_labels=training.tensors[1],
        test_labels=[f"said {label}" for label in decisions[:4]],
    ).savefig(figure, dpi=90)
    print(f"figure: {figure}")

    options = {"train_dataset": training, "show_progress": False}
    methods = {
        "DualView": method,
        "last block": GradientSimilarity(
            model, "heads.head", layers=["encoder.layers.encoder_layer_1.mlp", "heads"], **options
        ),
        "Random": RandomAttribution(model, "heads.head", **options),
    }
    table = quantus.evaluate(
        {"Identical Class": IdenticalClass(), "Top Cardinality": TopCardinality(k=5)},
        methods,
        model,
        x[:100].numpy(),
        decisions[:100].numpy(),
        explain_func_kwargs={},
        agg_func=np.nanmean,
        return_as_df=True,
    )
    print(table)
    return table


if __name__ == "__main__":
    main(*sys.argv[1:2])
