"""Networks retrained on random subsets of the training data, and what they say of the test points; it can resume."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset
from tqdm.auto import tqdm

from dualview_plugin.batches import Batch, leaves, n_rows, rows_of
from dualview_plugin.data import TrainingData, as_batch
from dualview_plugin.errors import CacheWarning, InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.arguments import check_class_labels, check_length
from dualview_plugin.metrics.sources.arrays import Array, logits_of, row_slices
from dualview_plugin.network import are_probabilities, fingerprint, preserved_random_state, seed_random_states
from dualview_plugin.storage import write_whole
from dualview_plugin.validation import check_fraction, check_integer

Train: TypeAlias = Callable[[Dataset[Any], int], nn.Module]
_OWNER = "retrain_on_subsets"
_FORMAT = 2
_N_PROBES = 128  # training points by which data that do not lie in memory are recognised


@dataclass(frozen=True)
class SubsetOutputs:
    """What retrained networks say of the test points.

    Attributes:
        subsets: which training points each network was trained on, bool (n_subsets, n_train).
        log_softmax: log p(decision | x) of the class that the explained network decided for, (n_subsets, n_test).
        margin: z_y − logsumexp of the other logits, for the true label y, (n_subsets, n_test).
    """

    subsets: NDArray[np.bool_]
    log_softmax: NDArray[np.float64]
    margin: NDArray[np.float64]


@dataclass(frozen=True)
class TestPoints:
    """The points that retrained networks are asked about.

    Attributes:
        inputs: (n_test, …).
        labels: the true labels, (n_test,).
        decisions: what the explained network takes them for, (n_test,).
    """

    inputs: Batch
    labels: NDArray[np.int64]
    decisions: NDArray[np.int64]

    __test__ = False  # pytest would take the name for a test's


def retrain_on_subsets(
    train: Train,
    train_dataset: Dataset[Any],
    x_test: Any,
    labels: ArrayLike,
    decisions: ArrayLike,
    *,
    folder: str | Path,
    n_subsets: int = 100,
    share: float = 0.5,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> SubsetOutputs:
    """Retrain on random subsets of the training data, and keep what each network says of the test points.

    Each subset's outputs are a file of their own in ``folder``, written whole or not at all. A broken-off call goes on
    where it stopped, and a larger ``n_subsets`` adds to what is there. A manifest refuses other settings and
    other data. Data that do not lie in memory are recognised by 128 samples.

    Args:
        train: ``train(subset, seed) -> network``; called with a part of the training data and a seed of its own. The
            global random states are seeded with it before the call and as before after it.
        train_dataset: a map-style dataset of ``(input, label)`` pairs.
        x_test: test inputs, (n_test, …).
        labels: the true labels of the test points, (n_test,).
        decisions: what the explained network takes them for, (n_test,).
        folder: where outputs and manifest lie; made if it is not there.
        n_subsets: how many networks, two at least.
        share: of the training points in a subset.
        seed: of the draws; subset i depends on the seed and i alone.
        settings: what ``train`` depends on, such as its epochs, as values that JSON has: part of the manifest.
        show_progress: a progress bar over the subsets.

    Returns:
        Subsets and outputs, for :class:`~dualview_plugin.metrics.LinearDatamodeling`. Outputs of a network that gives
        NaN or infinity are NaN.

    Raises:
        InvalidTypeError, InvalidValueError: an argument breaks its constraint, the folder holds outputs of other
            settings, or ``train`` returns no network with a logit for each label.

    Warns:
        CacheWarning: a file is damaged, and its network is trained again.

    Source: Park et al. 2023 (TRAK); arXiv 2402.12118, v3 (100 subsets of half of the data).
    Cost: n_subsets trainings; one reading of the training labels.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin import retrain_on_subsets
        >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.arange(4) % 2)
        >>> def train(subset, seed):
        ...     network = nn.Linear(4, 2)
        ...     optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        ...     inputs, labels = next(iter(torch.utils.data.DataLoader(subset, batch_size=len(subset))))
        ...     nn.functional.cross_entropy(network(inputs), labels).backward()
        ...     optimizer.step()
        ...     return network
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = {"folder": folder, "n_subsets": 5}
        ...     found = retrain_on_subsets(train, data, torch.eye(4)[:3], [0, 1, 0], [0, 1, 1], **options)
        >>> found.subsets.sum(axis=1).tolist(), found.margin.shape
        ([2, 2, 2, 2, 2], (5, 3))
    """
    data = TrainingData(train_dataset, 256, _OWNER)
    points = _checked_points(x_test, labels, decisions)
    count = check_integer(n_subsets, "n_subsets", _OWNER, minimum=2)
    n_chosen = round(check_fraction(share, "share", _OWNER) * len(data))
    if n_chosen == 0:
        raise InvalidValueError("share", _OWNER, "enough for one training point", repr(share))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    manifest = _manifest(data, points, n_chosen, check_integer(seed, "seed", _OWNER, minimum=0), settings)
    _check_manifest(place / "manifest.json", manifest)
    subsets, outputs = np.zeros((count, len(data)), dtype=np.bool_), np.empty((2, count, len(points.labels)))
    for index in tqdm(range(count), desc="retraining", disable=not show_progress):
        chosen, train_seed = draw_subset(len(data), n_chosen, seed, index)
        path = place / f"subset-{index:05d}.npz"
        stored = _load(path, chosen, len(points.labels))
        if stored is None:
            stored = _outputs(trained_on(train, data.dataset, chosen, train_seed, _OWNER), points)
            _save(path, {"indices": chosen, "log_softmax": stored[0], "margin": stored[1]})
        subsets[index, chosen], outputs[:, index] = True, stored
    return SubsetOutputs(subsets, *outputs)


def draw_subset(n_train: int, n_chosen: int, seed: int, index: int) -> tuple[NDArray[np.int64], int]:
    """The positions of the training points in subset ``index``, ascending, and the seed for its training."""
    generator = np.random.default_rng([seed, index])
    chosen = np.sort(generator.choice(n_train, size=n_chosen, replace=False)).astype(np.int64)
    return chosen, int(generator.integers(2**31))


def output_functions(
    logits: Tensor, labels: NDArray[np.int64], decisions: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-softmax of the decisions and margins of the labels, both (n,), from logits (n, n_classes)."""
    values = logits.detach().double().cpu()
    rows, of_labels = torch.arange(len(values), device="cpu"), torch.from_numpy(labels)
    log_softmax = values.log_softmax(dim=1)[rows, torch.from_numpy(decisions)]
    true = values[rows, of_labels]
    others = values.clone()
    others[rows, of_labels] = -torch.inf
    margin = true - others.logsumexp(dim=1)
    return _nan_for_infinite(log_softmax), _nan_for_infinite(margin)


def _nan_for_infinite(values: Tensor) -> NDArray[np.float64]:
    """The values as an array; NaN for those that are not finite."""
    return torch.where(values.isfinite(), values, torch.nan).numpy()


def _checked_points(x_test: Any, labels: ArrayLike, decisions: ArrayLike) -> TestPoints:
    """The test points, if there is a label and a decision for each."""
    inputs, checked = as_batch(x_test, _OWNER, "x_test"), []
    for values, name in ((labels, "labels"), (decisions, "decisions")):
        classes = check_class_labels(values, name, _OWNER)
        check_length(classes, n_rows(inputs), name, _OWNER)
        if classes.min() < 0:
            raise InvalidValueError(name, _OWNER, "classes from 0", int(classes.min()))
        checked.append(classes)
    return TestPoints(inputs, *checked)


def trained_on(train: Train, dataset: Any, chosen: NDArray[np.int64], seed: int, owner: str) -> nn.Module:
    """The network that ``train`` makes of these training points."""
    with preserved_random_state():
        seed_random_states(seed)
        model = train(Subset(dataset, chosen.tolist()), seed)
    if not isinstance(model, nn.Module):
        raise InvalidTypeError("train", owner, "a function that returns a torch.nn.Module", type(model).__name__)
    return model


def _outputs(model: nn.Module, points: TestPoints) -> NDArray[np.float64]:
    """Both outputs of a network for all test points, (2, n_test)."""
    n_classes = int(max(points.labels.max(), points.decisions.max())) + 1
    parts = []
    for rows in row_slices(len(points.labels), 256):
        logits = logits_of(model, rows_of(points.inputs, rows), _OWNER)
        if logits.ndim != 2 or logits.shape[1] < max(n_classes, 2):
            constraint = f"a function that returns a network with outputs (n, n_classes), n_classes ≥ {n_classes}"
            raise InvalidValueError("train", _OWNER, constraint, f"shape {tuple(logits.shape)}")
        if are_probabilities(logits):
            constraint = "a function that returns a network whose outputs are logits, without a softmax"
            raise InvalidValueError("train", _OWNER, constraint, "probabilities, which add up to 1")
        parts.append(np.stack(output_functions(logits, points.labels[rows], points.decisions[rows])))
    return np.concatenate(parts, axis=1)


def _manifest(
    data: TrainingData, points: TestPoints, n_chosen: int, seed: int, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What stored outputs depend on, as JSON gives it back."""
    train_labels = torch.cat([labels for _, labels in data.batches()])
    readings = {data.identity(n_probes=_N_PROBES).digest for _ in range(2)}
    manifest = {
        "format": _FORMAT,
        "n_train": len(data),
        "n_chosen": n_chosen,
        "seed": seed,
        "train_labels": fingerprint(train_labels),
        "train_inputs": readings.pop() if len(readings) == 1 else "others at each reading",
        "test_points": fingerprint(*leaves(points.inputs), *map(torch.as_tensor, (points.labels, points.decisions))),
        "settings": dict(settings or {}),
    }
    try:
        restored: dict[str, Any] = json.loads(json.dumps(manifest))
    except TypeError as error:
        raise InvalidTypeError("settings", _OWNER, "values that JSON has", str(error)) from error
    return restored


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Refuse a folder of other settings; write the manifest of a new one."""
    if not path.exists():
        write_whole(path, json.dumps(manifest, indent=2).encode())
        return
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidValueError("folder", _OWNER, "one with a readable manifest", f"{path.name}: {error}") from error
    others = [name for name in manifest if not isinstance(stored, dict) or stored.get(name) != manifest[name]]
    if others:
        constraint = "an empty one, or one of the same settings"
        raise InvalidValueError("folder", _OWNER, constraint, f"outputs of other {', '.join(others)}")


def _load(path: Path, chosen: NDArray[np.int64], n_test: int) -> NDArray[np.float64] | None:
    """The stored outputs, (2, n_test); None if there are none, with a warning if the file is not what was written."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            indices, outputs = file["indices"], np.stack([file["log_softmax"], file["margin"]])
        if not np.array_equal(indices, chosen) or outputs.shape != (2, n_test):
            raise ValueError("other points than those of this subset")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        message = f"{path} cannot be read, and its network is trained again: {error}"
        warnings.warn(message, CacheWarning, stacklevel=3)
        return None
    result: NDArray[np.float64] = outputs
    return result


def _save(path: Path, arrays: dict[str, Array]) -> None:
    """The arrays as one file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())
