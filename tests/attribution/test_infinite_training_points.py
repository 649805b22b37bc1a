"""Methods that need no features refuse training points of NaN or infinity, and blame no network and no test point."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import ArnoldiInfluence, EKFACInfluence, InputSimilarity, TracIn
from dualview_plugin.errors import DualViewError


@pytest.mark.parametrize("position", [13, 12])  # one that the probe reads, and one that it does not
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", [ArnoldiInfluence, EKFACInfluence, InputSimilarity, TracIn])
def test_the_training_data_are_refused(kind: Any, value: float, position: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x = torch.randn(20, 4)
    x[position, 2] = value
    method = kind(network, "2", TensorDataset(x, torch.arange(20) % 3), batch_size=5, show_progress=False)
    with pytest.raises(
        DualViewError, match=f"train_dataset of {kind.__name__} .*NaN or inf at (.*{position}|.*10 to 14)"
    ):
        method.attribute(x[:2], 1)


def test_inputs_of_several_lengths_have_no_similarity() -> None:
    def padded(samples: list[Any]) -> tuple[Tensor, Tensor]:
        texts = nn.utils.rnn.pad_sequence([text for text, _ in samples], batch_first=True)
        return texts, torch.tensor([label for _, label in samples])

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.fc(x.sum(1))
            return outputs

    samples = [(torch.randn(2 + i // 5, 4), i % 3) for i in range(20)]
    loader = DataLoader(samples, batch_size=5, collate_fn=padded)  # type: ignore[arg-type]
    method = InputSimilarity(Mean(), "fc", loader, show_progress=False)
    with pytest.raises(DualViewError, match="of samples of one shape"):
        method.attribute(torch.randn(2, 3, 4))
