"""What the command works on: a network with its training data and test points, ready-made or the user's."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin.demo import load_digits, small_cnn, train
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.arguments import check_class_labels
from dualview_plugin.modifications import GroupedClasses, MarkedImages, PoisonedLabels

_OWNER = "dualview"
_MARKED_CLASS, _FRACTION = 2, 0.3


@dataclass
class Task:
    """A network to explain; the attributes after ``x_test`` may be missing.

    Attributes:
        model: the trained network.
        final_fc_layer: its last linear layer, or the dotted name of it.
        train_dataset: as :class:`DataAttribution` takes it.
        x_test: test inputs, (n_test, …).
        y_test: their labels, (n_test,).
        class_names: a name for each class.
        C: DualView's C for this task, or "auto".
        to_display: undoes the normalisation of an image.
        test_ids: a name for each test point.
        train_ids: a name for each training point.
        target: the classes to explain, (n_test,); None: the network's decisions.
        poisoned_indices: training points with wrong labels.
        marked_indices: training points with a mark.
        train_subclasses: the subclass of each training point.
        test_subclasses: the subclass of each test point.
    """

    model: nn.Module
    final_fc_layer: nn.Module | str
    train_dataset: Any
    x_test: Tensor
    y_test: Any = None
    class_names: Sequence[str] | None = None
    C: float | str = 1e-3
    to_display: Any = None
    test_ids: Sequence[object] | None = None
    train_ids: Sequence[object] | None = None
    target: Any = None
    poisoned_indices: Any = None
    marked_indices: Any = None
    train_subclasses: Any = None
    test_subclasses: Any = None

    def first(self, n_test: int) -> Task:
        """The task with its first test points alone."""
        return self.at(range(min(n_test, len(self.x_test))))

    def at(self, indices: Sequence[int]) -> Task:
        """The task with these test points alone; each keeps its name, by default its position."""
        ids = list(range(len(self.x_test))) if self.test_ids is None else self.test_ids
        chosen = {"x_test": self.x_test[list(indices)], "test_ids": [ids[i] for i in indices]}
        for name in ("y_test", "target", "test_subclasses"):
            values = getattr(self, name)
            chosen[name] = None if values is None else torch.as_tensor(values)[list(indices)]
        return Task(**{**{field.name: getattr(self, field.name) for field in fields(self)}, **chosen})


def own_task(name: str) -> Task:
    """What the user's function ``MODULE:FUNCTION`` returns.

    Raises:
        InvalidValueError: there is no such module or function, or a field is missing, unknown or of another
            length than the test points.
        InvalidTypeError: the function takes arguments or returns neither a mapping nor a Task, or a field has another
            type.
    """
    module_name, _, function_name = name.partition(":")
    if not (function_name and all(part.isidentifier() for part in module_name.split("."))):
        raise InvalidValueError("TASK", _OWNER, "digits, mnist, cifar10 or MODULE:FUNCTION", repr(name))
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the user's module was found, and misses another one
        raise InvalidValueError("TASK", _OWNER, "a module that Python finds from this folder", module_name) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InvalidValueError("TASK", _OWNER, f"a function of the module {module_name}", repr(function_name))
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InvalidTypeError("TASK", _OWNER, "a function that takes no argument", f"{name}, {error}") from error
    made = function()
    if isinstance(made, Task):
        return _checked(made, name)
    if not isinstance(made, Mapping):
        raise InvalidTypeError(name, _OWNER, "a function that returns a mapping", type(made).__name__)
    known = {field.name for field in fields(Task)}
    required = {"model", "final_fc_layer", "train_dataset", "x_test"}
    if missing := sorted(required - made.keys()):
        raise InvalidValueError(name, _OWNER, f"a mapping with {', '.join(sorted(required))}", f"none of {missing}")
    if unknown := sorted(set(made) - known):
        raise InvalidValueError(name, _OWNER, f"a mapping with keys among {sorted(known)}", f"{unknown}")
    return _checked(Task(**made), name)


def _checked(task: Task, name: str) -> Task:
    """A task of the user whose network is one, and whose test points have as many labels and names."""
    if not isinstance(task.model, nn.Module):
        raise InvalidTypeError("model", name, "a torch.nn.Module", type(task.model).__name__)
    try:
        task.x_test = torch.as_tensor(task.x_test)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTypeError("x_test", name, "a tensor or an array", type(task.x_test).__name__) from error
    if task.x_test.ndim == 0 or len(task.x_test) == 0:
        got = f"shape {tuple(task.x_test.shape)}"
        raise InvalidValueError("x_test", name, "one test point at least, of shape (n_test, …)", got)
    task.x_test = task.x_test.detach()
    for field_name in ("y_test", "target", "test_subclasses", "test_ids"):
        values = getattr(task, field_name)
        if values is not None and (not hasattr(values, "__len__") or len(values) != len(task.x_test)):
            got = str(len(values)) if hasattr(values, "__len__") else type(values).__name__
            raise InvalidValueError(field_name, name, f"one for each of {len(task.x_test)} test points", got)
    for field_name in ("y_test", "target", "test_subclasses"):
        if (values := getattr(task, field_name)) is not None:
            setattr(task, field_name, torch.from_numpy(check_class_labels(values, field_name, name)))
    return task


def ready_task(
    name: str,
    modification: str = "none",
    *,
    epochs: int | None = None,
    data: Path | None = None,
    download: bool = False,
    device: str = "cpu",
    show_progress: bool = True,
) -> Task:
    """Digits, MNIST or CIFAR-10 with a small network that is trained now, after a modification of its data.

    Raises:
        InvalidValueError: no data set in the folder, or the mark changes no decision.
    """
    images, test, class_names = _digits() if name == "digits" else _torchvision(name, data, download)
    x_test, y_test = test.tensors
    n_classes, (n_channels, size) = 10, x_test.shape[1:3]
    truth: dict[str, Any] = {}
    training: Any = images
    if modification == "poisoned":
        training = PoisonedLabels(images, _FRACTION, n_classes)
        truth["poisoned_indices"] = training.poisoned_indices
    elif modification == "grouped":
        training = GroupedClasses(images, groups=[[2 * i, 2 * i + 1] for i in range(5)])
        truth |= {"train_subclasses": training.subclasses, "test_subclasses": y_test}
        n_classes, y_test = 5, y_test // 2
        class_names = [f"{class_names[2 * i]} or {class_names[2 * i + 1]}" for i in range(5)]
    elif modification == "marked":
        training = MarkedImages(images, _MARKED_CLASS, _FRACTION)
        truth["marked_indices"] = training.marked_indices
    torch.manual_seed(0)
    network = small_cnn(n_classes, size, n_channels=n_channels).to(device)
    model = train(network, training, epochs or (12 if name == "digits" else 3), show_progress=show_progress)
    if modification == "marked":
        x_test, kept = training.mismatched(model, x_test, y_test)
        if len(kept) == 0:
            constraint = "high enough for the network to learn the mark"
            raise InvalidValueError("--epochs", _OWNER, constraint, "no test point that the mark changes")
        y_test = y_test[torch.from_numpy(kept)]
        truth["target"] = torch.full((len(x_test),), _MARKED_CLASS)
    return Task(model, "fc", training, x_test, y_test, class_names, 0.05 if name == "digits" else 1e-3, **truth)


def _digits() -> tuple[TensorDataset, TensorDataset, list[str]]:
    """Scikit-learn's digits."""
    digits = load_digits()
    return digits.train, digits.test, [str(label) for label in range(10)]


def _torchvision(name: str, data: Path | None, download: bool) -> tuple[TensorDataset, TensorDataset, list[str]]:
    """MNIST or CIFAR-10 with values from 0 to 1, (n, channels, size, size)."""
    if data is None:
        raise InvalidValueError("--data", _OWNER, f"the folder that holds torchvision's {name}", "nothing")
    dataset = {"mnist": torchvision.datasets.MNIST, "cifar10": torchvision.datasets.CIFAR10}[name]
    try:
        parts = [dataset(str(data), train=is_train, download=download) for is_train in (True, False)]
    except RuntimeError as error:
        constraint = f"the folder that holds torchvision's {name}; --download fetches it"
        raise InvalidValueError("--data", _OWNER, constraint, str(data)) from error
    tensors = []
    for part in parts:
        pixels = torch.as_tensor(np.asarray(part.data), dtype=torch.float32) / 255
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        tensors.append(TensorDataset(pixels, torch.as_tensor(part.targets)))
    return tensors[0], tensors[1], [str(label) for label in parts[0].classes]
