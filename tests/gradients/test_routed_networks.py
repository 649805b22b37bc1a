"""Per-sample gradients of networks whose layers see other rows than the samples, or that are no plain networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.models import resnet18, vgg11_bn

from benchmarks.networks import PaperCNN
from dualview_plugin import GradientSimilarity
from dualview_plugin.errors import DualViewError, InvalidValueError
from dualview_plugin.gradients import GaussianProjection, PerSampleGradients, SampleGradients
from dualview_plugin.gradients.operations import count_operations, may_move_rows
from tests.conftest import TOLERANCES
from tests.gradients.networks import gradient_by_gradient
from tests.gradients.routed_networks import NETWORKS, Squeezing, Writing, make

EXACT = TOLERANCES[torch.float64]
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def in_batches(per_sample: PerSampleGradients, inputs: Tensor, target: Tensor, size: int) -> SampleGradients:
    parts = zip(inputs.split(size), target.split(size), strict=True)
    return SampleGradients.stack(per_sample(*part) for part in parts)


def assert_gradients_are(found: SampleGradients, expected: Tensor) -> None:
    torch.testing.assert_close(found.inner(found), expected @ expected.mT, **EXACT)
    torch.testing.assert_close(found.norms(), expected.norm(dim=1), **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "size", [1, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 12]
)
def test_gradients_are_those_of_each_sample_alone(name: str, size: int) -> None:
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    expected = gradient_by_gradient(model, inputs, target)
    assert_gradients_are(in_batches(per_sample, inputs, target, size), expected)
    assert_gradients_are(in_batches(per_sample, inputs, target, size), expected)  # and once all batches are known
    torch.testing.assert_close(per_sample.flat(inputs, target), expected, **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_projections_and_directions_have_one_layout(name: str) -> None:
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    expected, projection = gradient_by_gradient(model, inputs, target), GaussianProjection(7, seed=3)
    projected = projection(in_batches(per_sample, inputs, target, 4))
    directions = per_sample.flatten(*projection.adjoint(torch.eye(7, dtype=torch.float64), per_sample(inputs, target)))
    torch.testing.assert_close(projected, expected @ directions.mT, **EXACT)


def test_a_rule_that_fails_later_is_refused() -> None:
    model, inputs, target = make("sorted")
    per_sample = PerSampleGradients(model)
    inputs = inputs[inputs[:, 1].argsort()]
    assert_gradients_are(per_sample(inputs, target), gradient_by_gradient(model, inputs, target))
    with pytest.raises(DualViewError, match=r"see the samples of every batch in their order, got .* inner\.weight"):
        per_sample(inputs.flip(0), target)


def test_the_input_stays_as_it_is_though_the_network_writes_to_it() -> None:
    model, inputs = Writing(to_layer_input=False).double(), torch.randn(7, 5, dtype=torch.float64)
    before = inputs.clone()
    found = PerSampleGradients(model)(inputs, LABELS)
    assert torch.equal(inputs, before)
    assert_gradients_are(found, gradient_by_gradient(model, inputs, LABELS))


def test_a_layers_input_that_is_overwritten_is_refused_as_by_autograd() -> None:
    model, inputs = Writing(to_layer_input=True).double(), torch.randn(7, 5, dtype=torch.float64)
    with pytest.raises(InvalidValueError, match=r"autograd can differentiate, got .* modified by an inplace operation"):
        PerSampleGradients(model)(inputs, LABELS)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_network_that_squeezes_a_batch_of_one(size: int) -> None:
    model, inputs = Squeezing().double(), torch.randn(7, 5, dtype=torch.float64)
    model.squeezes = False
    expected = gradient_by_gradient(model, inputs, LABELS)
    model.squeezes = True
    per_sample = PerSampleGradients(model, doubles_single=True)
    assert_gradients_are(in_batches(per_sample, inputs, LABELS, size), expected)
    torch.testing.assert_close(per_sample.flat(inputs, LABELS), expected, **EXACT)


class Wrapped(nn.Module):
    """A network of which a function makes something else."""

    def __init__(self, output) -> None:
        super().__init__()
        self.inner, self.fc, self.output = nn.Linear(5, 7), nn.Linear(7, 3), output

    def forward(self, x: Tensor) -> object:
        return self.output(self.fc(torch.relu(self.inner(x))))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda y: (y, None), r"outputs of shape \(n_samples, n_classes\), .*, got tuple"),
        (lambda y: {"scores": y}, "got dict"),
        (lambda y: y[0], r"got shape \(3,\)"),
        (lambda y: y[:, :, None], r"got shape \(7, 3, 1\)"),
        (lambda y: y[:-1], r"got shape \(6, 3\)"),
        (lambda y: y.detach(), "got outputs without a gradient"),
        (lambda y: y.round().long(), "floating outputs, got torch.int64"),
    ],
)
def test_an_output_that_is_no_differentiable_matrix_is_refused(output, message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"model of Method must be a network .*{message}"):
        PerSampleGradients(Wrapped(output), owner="Method")(torch.randn(7, 5), LABELS)


class Closed(nn.Module):
    """A network that runs without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


def test_no_gradient_is_not_a_gradient_of_zero() -> None:
    with pytest.raises(InvalidValueError, match=r"model of Method must be .* autograd can differentiate"):
        PerSampleGradients(Closed(), owner="Method")(torch.randn(7, 5), LABELS)
    with pytest.raises(InvalidValueError, match="model of Method must be a network with floating parameters"):
        PerSampleGradients(nn.Flatten(), owner="Method")
    with torch.inference_mode():
        model = nn.Linear(5, 3)
    with pytest.raises(InvalidValueError, match=r"model of Method must be .* outside torch.inference_mode"):
        PerSampleGradients(model, owner="Method")


def test_inference_mode_changes_nothing() -> None:
    model, inputs, target = make("scalar parameter")
    expected = gradient_by_gradient(model, inputs, target)
    with torch.inference_mode():
        per_sample = PerSampleGradients(model)
        found = per_sample(inputs.clone(), target.clone())
    assert_gradients_are(found, expected)
    assert not found.dense.is_inference()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    """Gradients of 300 have squares above the largest number of float16."""
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 3)).to(dtype)
    inputs = (100 * torch.randn(7, 5)).to(dtype)
    twin = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 3))
    twin.load_state_dict(model.state_dict())
    per_sample = PerSampleGradients(model)
    found, expected = per_sample(inputs, LABELS), gradient_by_gradient(twin, inputs.float(), LABELS)
    assert found.dense.dtype == torch.float32
    torch.testing.assert_close(found.norms(), expected.norm(dim=1).double(), rtol=0.05, atol=0)
    assert per_sample.flat(inputs, LABELS).dtype == torch.float32


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_norms_of_any_size(scale: float) -> None:
    model = nn.Sequential(nn.Linear(29, 31), nn.ReLU(), nn.Linear(31, 3))
    exact = nn.Sequential(nn.Linear(29, 31), nn.ReLU(), nn.Linear(31, 3)).double()
    exact.load_state_dict(model.state_dict())
    inputs = torch.randn(7, 29)
    with torch.no_grad():
        for network in (model, exact):
            network[2].weight.mul_(scale)
    gradients = PerSampleGradients(model, ["0"])(inputs, LABELS)
    expected = gradient_by_gradient(exact, inputs.double(), LABELS)[:, : 29 * 31 + 31]
    torch.testing.assert_close(gradients.norms(), expected.norm(dim=1), rtol=1e-4, atol=0)
    unit = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        gradients.normalised().inner(gradients.normalised()).double(), unit @ unit.mT, rtol=1e-4, atol=1e-5
    )


def test_values_that_are_not_finite_are_found_in_every_form() -> None:
    model = nn.Sequential(nn.Linear(29, 31), nn.LayerNorm(31), nn.Linear(31, 3))
    inputs = torch.randn(7, 29)
    inputs[3, 2] = torch.nan
    finite = PerSampleGradients(model)(inputs, LABELS).is_finite()
    assert finite.tolist() == [True, True, True, False, True, True, True]


class Sorting(nn.Module):
    """Sorts its batch by the first feature and puts it back behind, as in front of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.fc = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort(descending=True, stable=True)
        return self.fc(torch.tanh(self.inner(x[order])))[order.argsort()]


class Turning(Sorting):
    """Turns a batch around that begins with a large number, by an operation that others do not have."""

    def forward(self, x: Tensor) -> Tensor:
        turns = bool(x[0, 0] > 1)
        hidden = self.fc(torch.tanh(self.inner(x.flip(0) if turns else x)))
        return hidden.flip(0) if turns else hidden


class Multiplying(Sorting):
    """Sorts by the product with a matrix."""

    def forward(self, x: Tensor) -> Tensor:
        order = torch.eye(len(x), dtype=x.dtype)[x[:, 0].argsort(descending=True, stable=True)]
        return order.mT @ self.fc(torch.tanh(self.inner(order @ x)))


@pytest.mark.parametrize("network", [Sorting, Turning, Multiplying])
@pytest.mark.parametrize("number", [3, 5, 6, 7, 9])
def test_a_batch_in_another_order_is_found_whatever_its_number(network: Any, number: int) -> None:
    """Rows of one key keep their order, so that nothing moves in the batches before."""
    model, x = network().double(), torch.randn(10, 4, 5, dtype=torch.float64)
    per_sample = PerSampleGradients(model)
    x[:, :, 0] = 1.0
    x[number - 1, 0 if network is Turning else 1, 0] = 2.0
    for batch in x[: number - 1]:
        assert_gradients_are(per_sample(batch, LABELS[:4]), gradient_by_gradient(model, batch, LABELS[:4]))
    with pytest.raises(InvalidValueError, match="see the samples of every batch in their order"):
        per_sample(x[number - 1], LABELS[:4])


def test_usual_networks_are_known_to_keep_the_order() -> None:
    images, tokens = torch.randn(2, 3, 32, 32), torch.tensor([[1, 2], [3, 4]])
    text = nn.Sequential(nn.Embedding(7, 5), nn.LayerNorm(5), nn.Flatten(), nn.GELU(), nn.Linear(10, 3))
    usual = ((resnet18(), images), (vgg11_bn(), images), (PaperCNN(), images[:, :1, :28, :28]), (text, tokens))
    for model, inputs in usual:
        assert not may_move_rows(count_operations(model.eval()(inputs)))
    for model in (Sorting(), Turning(), Multiplying()):
        assert may_move_rows(count_operations(model(torch.full((2, 5), 2.0))))


class Halves(nn.Module):
    """A body in one precision and a head in another."""

    def __init__(self, body: torch.dtype, head: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.fc = nn.Linear(5, 6).to(body), nn.Linear(6, 3).to(head)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.body(x.to(self.body.weight.dtype))).to(self.fc.weight.dtype))


@pytest.mark.parametrize("types", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_rounding_is_that_of_the_coarser_precision(types: Any) -> None:
    data = TensorDataset(torch.randn(40, 5), torch.arange(40) % 3)
    method = GradientSimilarity(Halves(*types), "fc", data, batch_size=8, show_progress=False)
    found = method.attribute(data.tensors[0][:4], 1)
    train = gradient_by_gradient(Halves(*types), *data.tensors)
    test = gradient_by_gradient(Halves(*types), data.tensors[0][:4], torch.ones(4, dtype=torch.int64))
    expected = test @ (train / train.norm(dim=1, keepdim=True)).mT
    torch.testing.assert_close(found, expected.to(found), rtol=1e-4, atol=1e-5)
