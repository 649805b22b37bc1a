"""The strongest training points of each test point, as a table with the user's own ids and class names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from dualview_plugin.attribution import DataAttribution
from dualview_plugin.attribution.common.targets import Target
from dualview_plugin.data import Inputs
from dualview_plugin.errors import InvalidValueError

_COLUMNS = ("test_id", "explained_class", "kind", "rank", "train_id", "train_label", "attribution")


@dataclass(frozen=True)
class TopPoints:
    """The strongest proponents and opponents of each test point.

    Proponents have positive attributions and opponents negative ones. A point with attribution zero is neither, so a
    sparse method may have fewer than k of a kind.

    Attributes:
        proponents: training points in descending order of attribution, (n_test, k) int64.
        proponent_scores: their attributions, (n_test, k).
        opponents: training points in ascending order of attribution, (n_test, k) int64.
        opponent_scores: their attributions, (n_test, k).
        target: the explained class of each test point, (n_test,) int64.
        train_labels: the label of every training point, (n_train,) int64.
        test_ids: a name for each test point, (n_test,).
        train_ids: a name for each training point, (n_train,); None: its position.
        class_names: a name for each class; None: its number.
    """

    proponents: Tensor
    proponent_scores: Tensor
    opponents: Tensor
    opponent_scores: Tensor
    target: Tensor
    train_labels: Tensor
    test_ids: Sequence[object]
    train_ids: Sequence[object] | None = None
    class_names: Sequence[str] | None = None

    def __len__(self) -> int:
        """The number of test points."""
        return len(self.target)

    def class_name(self, label: int) -> str:
        """The name of a class."""
        named = self.class_names is not None and label < len(self.class_names)
        return str(self.class_names[label]) if self.class_names is not None and named else str(label)

    def train_id(self, index: int) -> object:
        """The name of a training point."""
        return index if self.train_ids is None else self.train_ids[index]

    def of(self, test: int) -> Iterator[tuple[str, int, int, float]]:
        """The kind, rank, position and attribution of each training point of one test point; zeros are left out."""
        for kind, indices, scores in (
            ("proponent", self.proponents, self.proponent_scores),
            ("opponent", self.opponents, self.opponent_scores),
        ):
            sign = 1 if kind == "proponent" else -1
            pairs = zip(indices[test].tolist(), scores[test].tolist(), strict=True)
            yield from ((kind, rank, i, s) for rank, (i, s) in enumerate(pairs, start=1) if s * sign > 0)

    def rows(self) -> Iterator[tuple[object, str, str, int, object, str, float]]:
        """One row for each test point and training point, in the order of :meth:`to_pandas`' columns."""
        for test, target in enumerate(self.target.tolist()):
            for kind, rank, index, score in self.of(test):
                label = self.class_name(int(self.train_labels[index]))
                yield self.test_ids[test], self.class_name(target), kind, rank, self.train_id(index), label, score

    def to_pandas(self) -> Any:
        """A DataFrame: test_id, explained_class, kind, rank (from 1), train_id, train_label, attribution."""
        import pandas as pd

        return pd.DataFrame(list(self.rows()), columns=list(_COLUMNS))

    def _repr_html_(self) -> str:
        """The table as notebooks show it."""
        head = "".join(f"<th scope='col'>{name.replace('_', ' ')}</th>" for name in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(value))}</td>" for value in row) + "</tr>" for row in self.rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def top_points(
    method: DataAttribution,
    inputs: Inputs,
    k: int = 5,
    *,
    target: Target = None,
    test_ids: Sequence[object] | None = None,
    train_ids: Sequence[object] | None = None,
    class_names: Sequence[str] | None = None,
) -> TopPoints:
    """The ``k`` strongest proponents and opponents of each test point, with names.

    Args:
        method: any method of this package; it is fitted on first use.
        inputs: test inputs, (n_test, …).
        k: training points of each kind; at most n_train.
        target: the explained class: one for all test points or one for each; None: the network's decision.
        test_ids: a name for each test point, such as a file name; None: its position.
        train_ids: a name for each training point; None: its position.
        class_names: a name for each class; None: its number.

    Raises:
        InvalidTypeError, InvalidValueError: as :meth:`DataAttribution.influence`, or a list of names of wrong length.

    Cost: two calls of ``influence(inputs, k)``.

    Example:
        >>> import torch
        >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.arange(4) % 2)
        >>> from dualview_plugin import DualView, top_points
        >>> method = DualView(torch.nn.Sequential(torch.nn.Linear(4, 2)), "0", data, C=1.0, show_progress=False)
        >>> found = top_points(method, torch.eye(4)[:1], k=1, target=0, class_names=["cat", "dog"])
        >>> found.to_pandas()[["train_id", "train_label", "kind"]].values.tolist()
        [[0, 'cat', 'proponent'], [2, 'cat', 'opponent']]
    """
    owner = "top_points"
    with method.visit():
        best = method.strongest(inputs, k, target)
        worst = method.strongest(inputs, k, target, proponents=False)
        classes = torch.cat([block for _, block in method.blocks(inputs, target)]).cpu()
    n_test, labels = len(classes), method.train_labels_.cpu()
    _check_names(test_ids, n_test, "test_ids", owner)
    _check_names(train_ids, method.n_train_, "train_ids", owner)
    _check_names(class_names, method.n_classes_, "class_names", owner)
    return TopPoints(
        best.indices.cpu(),
        best.influence_scores.cpu(),
        worst.indices.cpu(),
        worst.influence_scores.cpu(),
        classes,
        labels,
        list(range(n_test)) if test_ids is None else test_ids,
        train_ids,
        class_names,
    )


def _check_names(names: Sequence[object] | None, size: int, parameter: str, owner: str) -> None:
    """Refuse a list of names that does not have one for each."""
    if names is not None and len(names) != size:
        raise InvalidValueError(parameter, owner, f"a sequence of {size} names", f"{len(names)}")


def _text(value: object) -> str:
    """A cell: floats with four digits that count."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
