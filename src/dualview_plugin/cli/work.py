"""What the commands do, once they run."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

import dualview_plugin
from dualview_plugin.attribution import DataAttribution, DualView
from dualview_plugin.cli.catalogue import METHODS, METRICS, TRUTHS
from dualview_plugin.cli.task import Task, own_task, ready_task
from dualview_plugin.errors import ConservationWarning, InvalidValueError
from dualview_plugin.metrics import DataAttributionMetric
from dualview_plugin.metrics.sources.arrays import to_array
from dualview_plugin.network import decisions
from dualview_plugin.plots import plot_training_points
from dualview_plugin.report import Scores, TopPoints, top_points, write_report
from dualview_plugin.validation import check_positive

_READY = ("digits", "mnist", "cifar10")
_OWNER = "dualview"


def load(
    task: str,
    modification: str,
    epochs: int | None,
    data: Path | None,
    download: bool,
    n_test: int,
    device: str,
    c: str | None,
    quiet: bool,
) -> Task:
    """The task of the command line, with its first ``n_test`` test points."""
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise InvalidValueError("--device", _OWNER, "a device of this machine", device) from error
    constant = None if c is None else _number_or_auto(c)
    if task in _READY:
        options: dict[str, Any] = {"epochs": epochs, "data": data, "download": download, "device": device}
        loaded = ready_task(task, modification, **options, show_progress=not quiet)
    else:
        if modification != "none":
            constraint = "none for a task of your own; put its truth into the mapping, such as poisoned_indices"
            raise InvalidValueError("--modify", _OWNER, constraint, modification)
        for name, value in (("--epochs", epochs), ("--data", data), ("--download", download or None)):
            if value is not None:
                constraint = "absent for a task of your own, whose function trains the network and reads the data"
                raise InvalidValueError(name, _OWNER, constraint, str(value))
        loaded = own_task(task)
        loaded.model.to(device)
    if constant is not None:
        loaded.C = constant
    return loaded.first(n_test)


def _number_or_auto(text: str) -> Any:
    """C as the methods take it."""
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError as error:
        raise InvalidValueError("-C", _OWNER, "a number or auto", repr(text)) from error
    return check_positive(value, "-C", _OWNER)


def make(task: Task, name: str, show_progress: bool) -> DataAttribution:
    """The method of this name for the task."""
    entry = METHODS[name]
    options = {**entry.options, **({"C": task.C} if entry.takes_c else {}), "show_progress": show_progress}
    made: DataAttribution = getattr(dualview_plugin, entry.class_name)(
        task.model, task.final_fc_layer, task.train_dataset, **options
    )
    return made


def check_ready_metrics(task: str, modification: str, metrics: Sequence[str]) -> None:
    """Refuse metrics for which a ready task has no truth, before its network is trained."""
    for name in metrics if task in _READY else ():
        _check_truth(name, [field for field in METRICS[name].needs if field not in TRUTHS[modification]])


def check_request(indices: Sequence[int], n_test: int, out: Path | None) -> None:
    """Refuse test points beyond the number that is used, and files of another kind than can be written."""
    if max(indices) >= n_test:
        constraint = f"below the number of test points, {n_test}; --n-test takes more"
        raise InvalidValueError("--index", _OWNER, constraint, max(indices))
    if out is not None and out.suffix not in (".html", ".png", ".pdf", ".svg"):
        raise InvalidValueError("--out", _OWNER, "a .html, .png, .pdf or .svg file", str(out))


def explained(task: Task) -> torch.Tensor:
    """The classes to explain, (n_test,)."""
    if task.target is not None:
        return torch.as_tensor(task.target)
    return decisions(task.model, task.x_test).cpu()


def evaluation(task: Task, methods: Sequence[str], metrics: Sequence[str], show_progress: bool) -> list[Scores]:
    """The scores of each method in each metric."""
    if not metrics:
        metrics = [name for name in METRICS if name != "model-randomization" and not _missing(task, name)]
    for name in metrics:
        _check_truth(name, _missing(task, name))
    classes, inputs = explained(task).numpy(), to_array(task.x_test)
    scores = []
    with tqdm(total=len(methods) * len(metrics), desc="scores", disable=not show_progress) as bar:
        for method_name in methods:
            method = make(task, method_name, show_progress=False)
            for metric_name in metrics:
                metric = _metric(task, metric_name)
                start = time.perf_counter()
                values = metric(task.model, inputs, classes, explain_func=method, explain_func_kwargs={})
                seconds = time.perf_counter() - start
                scores.append(Scores(method_name, metric_name, np.asarray(values, float).tolist(), seconds))
                bar.update()
    return scores


def explanation(
    task: Task, indices: Sequence[int], method: str, k: int, out: Path | None, show_progress: bool
) -> TopPoints:
    """The strongest training points of chosen test points, and their figure or page."""
    check_request(indices, len(task.x_test), out)
    chosen, made = task.at(indices), make(task, method, show_progress)
    names = {"test_ids": chosen.test_ids, "train_ids": chosen.train_ids, "class_names": chosen.class_names}
    found = top_points(made, chosen.x_test, k, target=chosen.target, **names)  # type: ignore[arg-type]
    if out is None:
        return found
    if out.suffix == ".html":
        _page(chosen, made, k, out, show_progress=show_progress)
        return found
    images = chosen.train_dataset
    figure = plot_training_points(
        chosen.x_test,
        images.dataset if isinstance(images, DataLoader) else images,
        (found.proponents, found.proponent_scores),
        (found.opponents, found.opponent_scores),
        train_labels=[found.class_name(label) for label in found.train_labels.tolist()],
        test_labels=[
            f"{one}\n{found.class_name(label)}"
            for one, label in zip(found.test_ids, found.target.tolist(), strict=True)
        ],
        to_display=chosen.to_display,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
    return found


def page(task: Task, method: str, others: Sequence[str], n_points: int, k: int, out: Path, show_progress: bool) -> Path:
    """The report: scores on all test points of the task, and cards of the first ``n_points``."""
    names = [method, *(name for name in others if name != method)]
    scores = evaluation(task, names, (), show_progress)
    beside = {name: make(task, name, show_progress=False) for name in names[1:]}
    return _page(task.first(n_points), make(task, method, show_progress), k, out, scores, beside, show_progress)


def run_demo(out: Path, show_progress: bool) -> Iterator[str]:
    """Train, explain, score and draw; yields what to say about it."""
    task = ready_task("digits", show_progress=show_progress)
    said = explained(task)
    yield f"test accuracy of the network: {float((said == task.y_test).float().mean()):.3f}"
    dualview = make(task, "dualview", show_progress=False).fit()
    assert isinstance(dualview, DualView)
    agreement = float((dualview.surrogate_logits(task.x_test).argmax(dim=1).cpu() == said).float().mean())
    yield (
        f"DualView: {len(dualview.support_indices_)} of {dualview.n_train_} training points are support points, "
        f"relative duality gap {dualview.solution_.duality_gap:.0e}, "
        f"the surrogate decides as the network does on {agreement:.1%} of the test digits"
    )
    scores = evaluation(task, ("dualview", "representer", "random"), (), show_progress)
    yield table(scores)
    wrong = (said != task.y_test).nonzero().flatten().tolist()
    right = (said == task.y_test).nonzero().flatten().tolist()
    figure = out / "training_points.png"
    explanation(task, [*wrong[:2], *right[:2]], "dualview", 5, figure, show_progress=False)
    beside = {"representer": make(task, "representer", False), "random": make(task, "random", False)}
    shown = task.at([*wrong[:6], *right[: 20 - len(wrong[:6])]])
    path = _page(shown, dualview, 5, out / "report.html", scores, beside, show_progress)
    yield f"figure: {figure}\nreport: {path} (open it in a browser)"


def table(scores: Sequence[Scores]) -> str:
    """The scores as lines of text."""
    lines = [f"{'metric':<22}{'method':<22}{'mean':>8}  {'95 % interval':<18}{'seconds':>8}"]
    for score in sorted(scores, key=lambda one: one.metric):
        interval = score.interval()
        between = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        lines.append(f"{score.metric:<22}{score.method:<22}{score.mean:>8.3f}  {between:<18}{score.seconds or 0:>8.1f}")
    return "\n".join(lines)


def _page(
    task: Task,
    method: DataAttribution,
    k: int,
    out: Path,
    scores: Sequence[Scores] = (),
    others: dict[str, DataAttribution] | None = None,
    show_progress: bool = True,
) -> Path:
    """The page of a task's test points; where relevance is lost the page says so, and no warning is needed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConservationWarning)
        return write_report(
            out,
            method,
            task.x_test,
            k=k,
            target=task.target,
            test_labels=task.y_test,
            test_ids=task.test_ids,
            train_ids=task.train_ids,
            class_names=task.class_names,
            to_display=task.to_display,
            scores=scores,
            others=others,
            show_progress=show_progress,
        )


def _check_truth(metric: str, missing: list[str]) -> None:
    """Refuse a metric that lacks what it compares attributions with."""
    if missing:
        changes = [name for name, truth in TRUTHS.items() if set(METRICS[metric].needs) <= set(truth)]
        constraint = f"a task with {', '.join(METRICS[metric].needs)}, as with --modify {' or '.join(changes)}"
        raise InvalidValueError("TASK", f"metric {metric}", constraint, f"none of {missing}")


def _missing(task: Task, metric: str) -> list[str]:
    """The fields that the metric takes and the task lacks."""
    return [name for name in METRICS[metric].needs if getattr(task, name) is None]


def _metric(task: Task, name: str) -> DataAttributionMetric:
    """The metric of this name for the task."""
    entry = METRICS[name]
    truth = [np.asarray(getattr(task, field)) for field in entry.needs]
    metric: DataAttributionMetric = getattr(dualview_plugin, entry.class_name)(*truth, **entry.options)
    return metric
