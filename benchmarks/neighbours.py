"""Other packages' methods in the form of Table 1's contestants; each needs its package, all else runs without.

``NEIGHBOURS`` are those of Table 1, ``OF_ALL_METRICS`` those of the big table.

    pip install --no-deps dualxda==0.1.0 dualxda-skl dattri==0.3.0

captum is there already. ``matches`` names our method of the same kind: the pair whose ratio Table 1 states.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.contestants import DV_AS_DUALDA, Contestant
from benchmarks.explainers import LAYER, MARGIN_CONSTANT

INSTALL = "pip install --no-deps dualxda==0.1.0 dualxda-skl dattri==0.3.0"
BATCH_SIZE = 256  # our methods' default
STRONGEST = 10


class Neighbour(Contestant):
    """Another package's method.

    Attributes:
        modules: what must be importable.
        matches: our methods that it is compared with.
        has_fit: False: no fit, the constructor's time stands for it.
        most: training points at most, for a data set whose whole takes it more than about three minutes; ours are
            then measured at this number too.
    """

    modules: ClassVar[tuple[str, ...]]
    matches: ClassVar[tuple[str, ...]]
    has_fit: ClassVar[bool] = True
    most: ClassVar[dict[str, int]] = {}
    method: Any

    @classmethod
    def missing(cls) -> list[str]:
        """The modules that are not installed."""
        return [module for module in cls.modules if find_spec(module) is None]

    @classmethod
    def options(cls, _data_name: str) -> dict[str, Any]:
        """The method's own parameters."""
        return {}

    def _loader(self, dataset: TensorDataset) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=BATCH_SIZE)


class DualDA(Neighbour):
    """The authors' successor of DualView: liblinear's machine on raw features with an intercept."""

    modules = ("dualxda", "sklearn_dual")
    matches = ("DV", DV_AS_DUALDA)
    keeps = "4*s*(d + c) + 8*s + n"
    note = "writes its fit to disk; liblinear's default tolerance"

    @classmethod
    def options(cls, data_name: str) -> dict[str, Any]:
        return {"C": MARGIN_CONSTANT[data_name], "max_iter": 1_000_000}

    def fit(self) -> None:
        from dualxda import DualDA as Method

        case = self.case
        with tempfile.TemporaryDirectory() as folder:
            self.method = Method(case.network, case.train, LAYER, case.device, folder, **self.options(case.data_name))

    def explain(self) -> Tensor:
        with self.method:  # takes its hook off the network, which later fits share
            attributions: Tensor = self.method.attribute(self.case.x_test, self.case.targets)
        return attributions

    def sizes(self) -> dict[str, int]:
        return super().sizes() | {"s": len(self.method.samples)}


class DattriRPS(Neighbour):
    """dattri's representer points: full-batch gradient descent with a line search."""

    modules = ("dattri",)
    matches = ("RPS",)
    # Bounds, so that the run ends: its line search took minutes on one network and seconds on another.
    most: ClassVar[dict[str, int]] = {"mnist": 5_000, "cifar10": 2_000}
    keeps = "4*c*d"
    note = "goes through the training set again at each call for explanations"

    @classmethod
    def options(cls, _data_name: str) -> dict[str, Any]:
        return {"l2_strength": 0.003, "epoch": 3000}

    def fit(self) -> None:
        from dattri.algorithm.rps import RPSAttributor
        from dattri.task import AttributionTask

        network = self.case.network
        task = AttributionTask(_mean_loss, network, network.state_dict())
        self.method = RPSAttributor(task, LAYER, device=self.case.device, **self.options(self.case.data_name))
        self.method.cache(self._loader(self.case.train))

    def explain(self) -> Tensor:
        test = TensorDataset(self.case.x_test, self.case.targets)
        attributions: Tensor = self.method.attribute(self._loader(self.case.train), self._loader(test))
        return attributions.T


class TracIn(Neighbour):
    """captum's TracInCPFast with the trained network as its one checkpoint."""

    modules = ("captum",)
    matches = ("IF",)
    has_fit = False
    keeps = "0"
    note = "no fit (the constructor's time); no Hessian: inner products of last-layer gradients, anew at each call"

    def fit(self) -> None:
        from captum.influence import TracInCPFast

        network = self.case.network
        self.method = TracInCPFast(
            network,
            network.get_submodule(LAYER),
            self.case.train,
            checkpoints=[network.state_dict()],
            checkpoints_load_func=_load,
            loss_fn=nn.CrossEntropyLoss(reduction="sum"),
            batch_size=BATCH_SIZE,
        )

    def explain(self) -> Tensor:
        attributions: Tensor = self.method.influence((self.case.x_test, self.case.targets))
        return attributions


class Similarity(Neighbour):
    """captum's SimilarityInfluence: the cosine of penultimate activations."""

    batch_size = BATCH_SIZE

    modules = ("captum",)
    matches = ("SIM",)
    has_fit = False
    keeps = "0"
    note = (
        f"no fit (the constructor's time); activations, not gradients, 4*n*d bytes of them on disk; "
        f"the {STRONGEST} strongest training points only"
    )

    def fit(self) -> None:
        from captum.influence import SimilarityInfluence

        before_last = list(dict(self.case.network.named_children()))[-2]
        self.folder = tempfile.TemporaryDirectory()
        self.method = SimilarityInfluence(
            self.case.network,
            before_last,
            self.case.train,
            self.folder.name,
            "network",
            similarity_metric=_cosine,
            batch_size=self.batch_size,
        )

    def explain(self) -> Tensor:
        (strongest, *_) = self.method.influence(self.case.x_test, top_k=STRONGEST).values()
        similarities: Tensor = strongest[1]
        return similarities


NEIGHBOURS: dict[str, type[Neighbour]] = {
    "DualDA": DualDA,
    "dattri RPS": DattriRPS,
    "TracInCPFast": TracIn,
    "SimilarityInfluence": Similarity,
}


class SimilarityToAll(Similarity):
    """Captum's SimilarityInfluence, the strongest training points put back in the dataset's order."""

    matches = ("feature similarity",)

    def fit(self) -> None:
        self.batch_size = len(self.case.train)  # captum takes the strongest of each batch, which must have as many
        super().fit()

    def explain(self) -> Tensor:
        (found, *_) = self.method.influence(self.case.x_test, top_k=len(self.case.train)).values()
        indices, values = found
        return torch.zeros_like(values).scatter_(1, indices, values)


class DattriEKFAC(Neighbour):
    """dattri's EK-FAC over all linear layers: convolutions are left out."""

    modules = ("dattri",)
    matches = ("EK-FAC",)
    keeps = "0"
    batch_size = 64

    @classmethod
    def options(cls, _data_name: str) -> dict[str, Any]:
        return {"damping": 1e-3}

    def fit(self) -> None:
        from dattri.algorithm.influence_function import IFAttributorEKFAC
        from dattri.task import AttributionTask

        network = self.case.network
        task = AttributionTask(_sample_loss(network), network, network.state_dict())
        self.method = IFAttributorEKFAC(task, device=self.case.device, **self.options(self.case.data_name))
        self.loader = DataLoader(self.case.train, batch_size=self.batch_size)
        self.method.cache(self.loader)

    def explain(self) -> Tensor:
        test = DataLoader(TensorDataset(self.case.x_test, self.case.targets), batch_size=self.batch_size)
        attributions: Tensor = self.method.attribute(self.loader, test)
        return attributions.T.detach()


class DattriTRAK(Neighbour):
    """dattri's TRAK with one network."""

    modules = ("dattri",)
    matches = ("TRAK",)
    keeps = "4*n*512"
    batch_size = 64

    @classmethod
    def options(cls, _data_name: str) -> dict[str, Any]:
        return {"projector_kwargs": {"proj_dim": 512, "proj_seed": 0}}

    def fit(self) -> None:
        from dattri.algorithm.trak import TRAKAttributor
        from dattri.task import AttributionTask

        network = self.case.network
        loss = _sample_loss(network)

        def margin(parameters: Any, pair: Any) -> Tensor:
            log_probability = -loss(parameters, pair)
            return log_probability - torch.log1p(-log_probability.exp() + 1e-12)

        def probability(parameters: Any, pair: Any) -> Tensor:
            return torch.exp(-loss(parameters, pair))

        task = AttributionTask(margin, network, network.state_dict())
        self.method = TRAKAttributor(task, probability, device=self.case.device, **self.options(self.case.data_name))
        self.method.cache(DataLoader(self.case.train, batch_size=self.batch_size))

    def explain(self) -> Tensor:
        test = TensorDataset(self.case.x_test, self.case.targets)
        attributions: Tensor = self.method.attribute(DataLoader(test, batch_size=self.batch_size))
        return attributions.T.detach()


# dattri's Arnoldi, DataInf and explicit Hessian are not among them: on digits the first and the last ask for more than
# 9 GB, and DataInf does not end within 150 s.
OF_ALL_METRICS: dict[str, type[Neighbour]] = {
    "dualxda": DualDA,
    "TracInCPFast": TracIn,
    "SimilarityInfluence": SimilarityToAll,
    "dattri RPS": DattriRPS,
    "dattri EK-FAC": DattriEKFAC,
    "dattri TRAK": DattriTRAK,
}


def _mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels)


def _sample_loss(network: nn.Module) -> Any:
    """The form of a loss that dattri asks for: of one sample without its batch axis, or the mean over a batch."""

    def loss(parameters: Any, pair: Any) -> Tensor:
        image, label = pair
        if label.ndim == 0:
            image, label = image[None], label[None]
        return cross_entropy(torch.func.functional_call(network, parameters, image), label)

    return loss


def _cosine(test: Tensor | list[Tensor], train: Tensor) -> Tensor:
    """Captum's default metric; captum 0.9.0 hands over the test activations of a single layer in a list."""
    from captum.influence._core.similarity_influence import cosine_similarity

    (activations,) = test if isinstance(test, list) else [test]
    return cosine_similarity(activations, train)


def _load(network: nn.Module, state: dict[str, Tensor]) -> float:
    """Captum's form of loading a checkpoint: returns its learning rate."""
    network.load_state_dict(state)
    return 1.0
