"""What Table 1 measures: a method with its network and data, what it keeps in memory, and our methods in this form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.explainers import CLASSES, LAYER, options
from dualview_plugin import DataAttribution, DualView

DV_AS_DUALDA = "DV (as DualDA)"
OURS = ("DV", DV_AS_DUALDA, "IF", "IF (LiSSA)", "RPS", "SIM", "SIM-rp", "RAND")

# Bytes that a fitted object keeps beside network and data, less what does not grow with n or with (c · d)²: n training
# points, d features, c classes, s support points, z of their coefficients off zero, k components.
_KEEPS = {
    "DV": "4*s*(d + c) + 16*s + 16*z + 8*n",
    DV_AS_DUALDA: "4*s*(d + c) + 16*s + 16*z + 8*n",
    "IF": "4*n*(d + c) + 8*(c*d)**2 + 8*n",
    "IF (LiSSA)": "4*n*(d + 2*c) + 8*n",
    "RPS": "4*n*(d + c) + 8*n*c + 16*n",
    "SIM": "8*n",
    "SIM-rp": "4*n*k + 12*n",
    "RAND": "8*n",
}
_NOTES = {
    "SIM": "goes through the training set at each block of explanations, in a memory budget of 1 GiB",
    "SIM-rp": "memory budget of 1 GiB",
}


@dataclass(frozen=True)
class Case:
    """What every method is given.

    Attributes:
        data_name: of the data set.
        network: trained, in eval mode.
        train: inputs and labels that it was trained on.
        x_test: what is explained.
        targets: the explained classes: the network's decisions.
        device: of the network.
    """

    data_name: str
    network: nn.Module
    train: TensorDataset
    x_test: Tensor
    targets: Tensor
    device: str

    def first(self, n_train: int, n_test: int | None = None) -> Case:
        """The same with the first training and test points only."""
        train = TensorDataset(*(tensor[:n_train] for tensor in self.train.tensors))
        return Case(self.data_name, self.network, train, self.x_test[:n_test], self.targets[:n_test], self.device)


class Contestant(ABC):
    """A method on a case; a new object for each fit.

    Attributes:
        keeps: the bytes that the fitted object keeps, a Python expression in the sizes of :meth:`sizes`.
        note: what to know when its figures are compared.
    """

    keeps: str
    note: str = ""

    def __init__(self, case: Case) -> None:
        self.case = case

    @abstractmethod
    def fit(self) -> None:
        """All work before the first explanation, the forward passes included."""

    @abstractmethod
    def explain(self) -> Tensor:
        """The attributions of the case's test points to all training points."""

    def sizes(self) -> dict[str, int]:
        """n, d, c and, where the method has them, s, z, k; after the fit."""
        layer: Any = getattr(self.case.network, LAYER)
        return {"n": len(self.case.train), "d": layer.in_features, "c": layer.out_features}

    def kept_mib(self) -> float:
        """The formula's value."""
        return float(eval(self.keeps, {"__builtins__": {}}, self.sizes())) / 2**20


def our_options(name: str, data_name: str) -> dict[str, Any]:
    """The method's own parameters: those of the other tables, or DualDA's problem at the same C."""
    if name == DV_AS_DUALDA:
        return {**options("DV", data_name), "standardize": False, "fit_intercept": True}
    return options(name, data_name)


class Ours(Contestant):
    """One of this package's methods, with its setting of the other tables."""

    explainer: DataAttribution

    def __init__(self, case: Case, name: str) -> None:
        super().__init__(case)
        self.method = name
        self.keeps, self.note = _KEEPS[name], _NOTES.get(name, "")

    def fit(self) -> None:
        kind = DualView if self.method == DV_AS_DUALDA else CLASSES[self.method]
        chosen = our_options(self.method, self.case.data_name)
        explainer = kind(self.case.network, LAYER, self.case.train, show_progress=False, **chosen)
        self.explainer = explainer.fit()

    def explain(self) -> Tensor:
        return self.explainer.attribute(self.case.x_test, self.case.targets)

    def sizes(self) -> dict[str, int]:
        sizes = super().sizes()
        if isinstance(self.explainer, DualView):
            solution = self.explainer.solution_
            sizes |= {"s": solution.n_support, "z": solution.sparse_dual_coef.nnz}
        return sizes | {"k": getattr(self.explainer, "n_components", 0)}
