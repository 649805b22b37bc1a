"""GradCos, FeatureSimilarity and InputSimilarity against torch's own functions, one pair at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from captum.influence import SimilarityInfluence
from captum.influence._core.similarity_influence import cosine_similarity as captum_cosine
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils.data import TensorDataset

from dualview_plugin import FeatureSimilarity, GradCos, GradientSimilarity, InputSimilarity
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.sources.similarity_source import SimilaritySource
from tests.attribution.loss_gradients import gradients
from tests.worlds import World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])
PAIR = {
    "cosine": lambda a, b: cosine_similarity(a, b, dim=0),
    "dot": torch.dot,
    "l2": lambda a, b: -(a - b).norm(),
}


def make(method: Any, world: World, **options: Any) -> Any:
    return method(world.model, "fc", world.train, show_progress=False, **options)


def features(world: World, x: Tensor) -> Tensor:
    caught: list[Tensor] = []
    network = copy.deepcopy(world.model).eval()
    network.fc.register_forward_hook(lambda _, args, __: caught.append(args[0]))
    network(x)
    return caught[0]


@pytest.mark.parametrize("similarity", list(PAIR))
@pytest.mark.parametrize("method", [FeatureSimilarity, InputSimilarity])
def test_attribution_is_the_similarity_of_each_pair(method: Any, similarity: str) -> None:
    world = small_world()
    vectors = features if method is FeatureSimilarity else lambda _, x: x.flatten(1)
    test, train = vectors(world, world.x_test), vectors(world, world.train.tensors[0])
    expected = torch.stack([torch.stack([PAIR[similarity](a, b) for b in train]) for a in test])
    found = make(method, world, similarity=similarity).attribute(world.x_test)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_captums_similarity_of_the_layer_before() -> None:
    """The input of a layer is the output of the one before it."""
    world = small_world()
    world.model.eval()
    influence = SimilarityInfluence(
        world.model, ["hidden"], world.train, "unused", "unused", similarity_metric=captum_cosine, batch_size=7
    )
    blocks = SimilaritySource(influence, None, 7, "test").blocks(world.x_test.numpy(), None)
    expected = torch.cat([torch.as_tensor(block) for block in blocks])
    network = Tapped(world.model)
    found = FeatureSimilarity(network, "tap", world.train, show_progress=False).attribute(world.x_test)
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-4, atol=1e-5)


class Tapped(nn.Module):
    """The small network with an identity behind its hidden layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.tap = network, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        net = self.network
        x = torch.relu(net.norm(net.conv(x))).flatten(1)
        return net.fc(torch.relu(self.tap(net.hidden(net.dropout(x)))))


def test_zero_vectors_have_a_similarity_of_zero() -> None:
    world = small_world()
    world.train.tensors[0][3] = 0
    found = make(InputSimilarity, world).attribute(world.x_test)
    assert found.isfinite().all()
    assert (found[:, 3] == 0).all()


def test_tokens_are_no_vectors() -> None:
    network = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(15, 2))
    train = TensorDataset(torch.randint(7, (9, 5)), torch.arange(9) % 2)
    with pytest.raises(InvalidTypeError, match="train_dataset of InputSimilarity must be of floating tensors"):
        InputSimilarity(network, "2", train, show_progress=False).fit()
    with pytest.raises(InvalidValueError, match="similarity of InputSimilarity must be"):
        InputSimilarity(network, "2", train, similarity="l1")


def test_inputs_of_another_shape_are_not_compared() -> None:
    images = torch.rand(6, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 2))
    method = InputSimilarity(model, "1", TensorDataset(images, torch.arange(6) % 2), show_progress=False)
    assert method.attribute(images, 1).argmax(1).tolist() == list(range(6))
    with pytest.raises(InvalidValueError, match=r"inputs of InputSimilarity must be .*: \(3, 4, 5\), got \(4, 5, 3\)"):
        method.attribute(images.permute(0, 2, 3, 1), 1)


def test_gradcos_is_the_cosine_of_whole_gradients() -> None:
    world = small_world()
    logit = lambda logits, label: logits[label]  # noqa: E731
    test, train = (
        gradients(world.model, logit, world.x_test, TARGET),
        gradients(world.model, logit, *world.train.tensors),
    )
    expected = cosine_similarity(test[:, None], train[None], dim=2)
    found = make(GradCos, world, memory_budget=100_000).attribute(world.x_test, TARGET)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    similar = make(GradientSimilarity, world).attribute(world.x_test, TARGET)
    assert torch.equal(similar.argmax(1), found.argmax(1))


def test_gradcos_of_a_gradient_of_zero_is_zero() -> None:
    world = small_world()
    with torch.no_grad():
        world.model.hidden.bias.fill_(-1e4)
    found = make(GradCos, world, layers=["hidden"])
    assert (found.attribute(world.x_test, TARGET) == 0).all()
    assert (found.self_influence() == 0).all()
    assert (found.input_attribution(world.x_test, TARGET) == 0).all()
