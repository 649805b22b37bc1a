"""Which training samples made a network of two inputs say this: an image, and a row of a table?

The images are scikit-learn's digits, with strokes taken away at random; the table has noisy measurements of the whole
digit: its ink, width, height and centre. The dataset gives ``(image, row, label)``, and the network takes both. Run it
with ``python -m examples.image_and_table [FIGURE]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import quantus
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import IdenticalClass, RandomAttribution, RepresenterPoints, TopCardinality, plot_training_points
from examples.digits import load_digits

FIGURE = Path(__file__).parents[1] / "docs" / "image_and_table.png"


def measurements(images: Tensor, generator: torch.Generator) -> Tensor:
    """Ink, width, height and centre of each digit, with noise, (n, 5)."""
    ink, axis = images[:, 0], torch.arange(images.shape[-1], dtype=torch.float32)
    total = ink.sum((1, 2))
    x, y = ((ink.sum(1) * axis).sum(1) / total, (ink.sum(2) * axis).sum(1) / total)
    spread = [(ink.sum(d) * (axis - c[:, None]).square()).sum(1) / total for d, c in ((1, x), (2, y))]
    rows = torch.stack([total, x, y, *spread], 1)
    rows = (rows - rows.mean(0)) / rows.std(0)
    return rows + 0.3 * torch.randn(rows.shape, generator=generator)


def with_gaps(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images with a third of their 4 × 4 squares taken away."""
    cells = (torch.rand(len(images), 1, 3, 3, generator=generator) > 1 / 3).float()
    return images * nn.functional.interpolate(cells, size=images.shape[-2:])


class TwoInputs(nn.Module):
    """A small network for the image, one for the row, and a linear layer for both."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32)
        )
        self.row = nn.Sequential(nn.Linear(5, 16), nn.ReLU())
        self.fc = nn.Linear(48, 10)

    def forward(self, image: Tensor, row: Tensor) -> Tensor:
        """Logits (n, 10)."""
        return self.fc(torch.cat([torch.relu(self.image(image)), self.row(row)], 1))


def load() -> tuple[TensorDataset, TensorDataset]:
    """Training and test samples: image (1, 12, 12), row (5,), label."""
    digits, generator = load_digits(size=12), torch.Generator().manual_seed(0)
    parts = []
    for part in (digits.train, digits.test):
        images, labels = part.tensors
        parts.append(TensorDataset(with_gaps(images, generator), measurements(images, generator), labels))
    return parts[0], parts[1]


def train(data: TensorDataset, epochs: int) -> TwoInputs:
    model = TwoInputs()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = DataLoader(data, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(0))
    for _ in range(epochs):
        for image, row, labels in loader:
            loss = nn.functional.cross_entropy(model(image, row), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def main(figure: str | Path = FIGURE, n_train: int = 1297, epochs: int = 15) -> object:
    torch.manual_seed(0)
    training, test = load()
    training = TensorDataset(*(part[:n_train] for part in training.tensors))
    model = train(training, epochs)
    image, row, labels = test.tensors
    method = RepresenterPoints(model, "fc", training, show_progress=False)
    decisions = method.decisions((image, row))
    print(f"accuracy {(decisions == labels).float().mean():.3f}")

    shown = (image[:3], row[:3])
    of_image, of_row = method.input_attribution(shown, k=10)
    share = of_row.abs().sum(1) / (of_row.abs().sum(1) + of_image.abs().sum((1, 2, 3)))
    plot_training_points(
        shown[0],
        training.tensors[0],
        method.influence(shown, k=4),
        method.influence(shown, k=4, proponents=False),
        train_labels=training.tensors[2],
        test_labels=[f"said {d}\ntable {s:.0%}" for d, s in zip(decisions[:3], share, strict=True)],
    ).savefig(figure, dpi=90)
    print(f"figure: {figure}")

    # Quantus takes one array: image and row side by side, which a function takes apart.
    def forward(network: nn.Module, batch: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        if isinstance(batch, Tensor):
            batch = batch[:, :-5].unflatten(1, image.shape[1:]), batch[:, -5:]
        return network(*batch)

    methods = {
        name: cls(model, "fc", training, forward=forward, show_progress=False)
        for name, cls in (("RepresenterPoints", RepresenterPoints), ("Random", RandomAttribution))
    }
    table = quantus.evaluate(
        {"Identical Class": IdenticalClass(), "Top Cardinality": TopCardinality(k=5)},
        methods,
        model,
        torch.cat([image.flatten(1), row], 1).numpy(),
        decisions.numpy(),
        explain_func_kwargs={},
        agg_func=np.nanmean,
        return_as_df=True,
    )
    print(table)
    return table


if __name__ == "__main__":
    main(*sys.argv[1:2])
