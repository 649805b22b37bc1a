"""The report: one HTML page with its images, style and script inside, which asks nothing of a network."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor
from tqdm import tqdm

from dualview_plugin.attribution import DataAttribution, FeatureKernelAttribution
from dualview_plugin.attribution.common.targets import Target
from dualview_plugin.data import Inputs
from dualview_plugin.errors import ConservationWarning, InvalidValueError
from dualview_plugin.network import are_probabilities
from dualview_plugin.plots.images import ToDisplay, display_image
from dualview_plugin.report.curves import mass_curve, svg
from dualview_plugin.report.heatmaps import Heatmaps, heatmaps
from dualview_plugin.report.images import data_uri
from dualview_plugin.report.scores import Scores
from dualview_plugin.report.top_points import TopPoints, top_points
from dualview_plugin.storage import write_whole
from dualview_plugin.validation import check_integer
from dualview_plugin.version import __version__

_OWNER = "write_report"


def write_report(
    path: str | Path,
    method: DataAttribution,
    inputs: Inputs,
    *,
    target: Target = None,
    k: int = 5,
    title: str = "Which training points made the network decide so?",
    test_labels: Sequence[int] | Tensor | None = None,
    test_ids: Sequence[object] | None = None,
    train_ids: Sequence[object] | None = None,
    class_names: Sequence[str] | None = None,
    to_display: ToDisplay | None = None,
    composite: Any = "epsilon_plus_flat",
    scores: Iterable[Scores] = (),
    others: Mapping[str, DataAttribution] | None = None,
    show_progress: bool = True,
) -> Path:
    """Write one self-contained HTML file about a method's explanations of some test points.

    It has a summary of the network and the data, how far the surrogate agrees with the network, the certificate of the
    solver, the scores with their intervals, the number of training points that carry an explanation, and a card for
    each test point with its proponents and opponents. Cards can be searched, filtered and sorted in the browser.

    Args:
        path: the file to write.
        method: any method of this package; it is fitted on first use.
        inputs: test inputs, (n_test, …). Images are shown if they are (1 or 3, height, width).
        target: the explained class: one for all test points or one for each; None: the network's decision.
        k: proponents and opponents of each test point.
        title: the page's heading.
        test_labels: the true label of each test point, (n_test,); None: unknown.
        test_ids: a name for each test point; None: its position.
        train_ids: a name for each training point; None: its position.
        class_names: a name for each class; None: its number.
        to_display: undoes the network's normalisation: an image (channels, height, width) to one with values in [0, 1].
            None: an image outside [0, 1] is stretched to it.
        composite: the composite for the heatmaps, as :class:`PairwiseRelevance` takes it; None: no heatmaps. Methods
            without a feature kernel and inputs that are no images get none.
        scores: what to put into the table of scores, a row for each pair of method and metric.
        others: further methods for the curves, by names other than the method's own.
        show_progress: a progress bar over the test points.

    Returns:
        The path of the file.

    Raises:
        InvalidTypeError, InvalidValueError: as :func:`top_points`, or labels that are none or of the wrong length.

    Warns:
        ConservationWarning: the heatmaps of some test points are not to be trusted; their cards say why.

    Cost: three attributions of the test points, and one LRP pass for each pair. Images above 48 pixels are reduced to
    96, so that 20 test points with ten pairs each stay below 5 MB.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from dualview_plugin import DualView, write_report
        >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.arange(4) % 2)
        >>> method = DualView(torch.nn.Sequential(torch.nn.Linear(4, 2)), "0", data, C=1.0, show_progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_report(f"{folder}/report.html", method, torch.eye(4)[:2], k=1, show_progress=False)
        ...     path.read_text().count("<article")
        2
    """
    names = {"test_ids": test_ids, "train_ids": train_ids, "class_names": class_names}
    top = top_points(method, inputs, k, target=target, **names)  # type: ignore[arg-type]
    labels = _labels(test_labels, len(top))
    compared = _all(method, others)
    with method.visit():
        batches = [batch for batch, _ in method.blocks(inputs, top.target)]
    facts = _Facts.of(method, inputs, top)
    curves = [mass_curve(name, one.attribute_blocks(inputs, top.target)) for name, one in compared.items()]
    test_images = _image_batches(batches)
    images = None
    if test_images is not None:
        images = [data_uri(display_image(image, to_display, _OWNER)) for batch in test_images for image in batch]
    maps = [Heatmaps({})] * len(top)
    indices = [[index for _, _, index, _ in top.of(test)] for test in range(len(top))]
    if test_images is not None and composite is not None and isinstance(method, FeatureKernelAttribution):
        with tqdm(total=len(top), desc="heatmaps", disable=not show_progress) as bar:
            maps = heatmaps(method, composite, torch.cat(test_images), top.target, indices, to_display, bar.update)
    train_images = _train_images(method, indices, to_display) if test_images is not None else {}
    cards = [
        _card(test, top, facts, labels, images, train_images, maps[test], curves[0].needed[test])
        for test in range(len(top))
    ]
    environment = Environment(
        loader=PackageLoader("dualview_plugin.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("report.html").render(
        title=title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        network=_network_rows(method, facts),
        agreement=_agreement_rows(facts, labels),
        certificate=_certificate_rows(method),
        scores=[_score_row(score) for score in scores],
        curves=curves,
        curves_svg=svg(curves),
        curve_rows=[[curve.method, *map(curve.count_for, (0.5, 0.9, 0.99))] for curve in curves],
        cards=cards,
        classes=sorted({card["explained"] for card in cards}),
        has_labels=labels is not None,
        has_surrogate=facts.surrogate is not None,
        has_heatmaps=any(one.pairs for one in maps),
        versions=_versions(),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode("utf-8", "backslashreplace"))  # names of files may be no UTF-8
    if n_off := sum(one.warning is not None for one in maps):
        warnings.warn(
            f"relevance is not conserved in heatmaps of {n_off} of {len(top)} test points: their cards say so. Another "
            "composite may help, such as named_composite('epsilon_plus_flat', model, zero_params='bias')",
            ConservationWarning,
            stacklevel=2,
        )
    return path


@dataclass(frozen=True)
class _Facts:
    """What the network and the surrogate say of the test points.

    Attributes:
        decisions: (n_test,).
        confidence: the softmax of the network's decision, (n_test,).
        surrogate: the surrogate's decisions, (n_test,); None: the method has no surrogate.
        correlation: of the surrogate's and the network's centred logits; None without a surrogate.
        n_features: the width of the penultimate layer.
    """

    decisions: Tensor
    confidence: Tensor
    surrogate: Tensor | None
    correlation: float | None
    n_features: int

    @classmethod
    @torch.no_grad()
    def of(cls, method: DataAttribution, inputs: Inputs, top: TopPoints) -> _Facts:
        """The facts of these test inputs."""
        with method.visit():
            outputs = [method.extract(batch) for batch, _ in method.blocks(inputs, top.target)]
        logits = torch.cat([logit.double().cpu() for _, logit in outputs])
        confidence, decisions = (logits if are_probabilities(logits) else logits.softmax(dim=1)).max(dim=1)
        surrogate, correlation = None, None
        if isinstance(method, FeatureKernelAttribution):
            theirs = method.surrogate_logits(inputs).double().cpu()
            surrogate = theirs.argmax(dim=1)
            both = torch.stack([(x - x.mean(dim=1, keepdim=True)).flatten() for x in (logits, theirs)])
            correlation = float(torch.corrcoef(both)[0, 1])
        return cls(decisions, confidence, surrogate, correlation, outputs[0][0].shape[1])


def _all(method: DataAttribution, others: Mapping[str, DataAttribution] | None) -> dict[str, DataAttribution]:
    """The method and the others, by name."""
    if method.get_name() in (others or {}):
        constraint = f"named otherwise than the method itself, {method.get_name()!r}"
        raise InvalidValueError("others", _OWNER, constraint, sorted(others or {}))
    return {method.get_name(): method, **(others or {})}


def _labels(labels: Sequence[int] | Tensor | None, n_test: int) -> list[int] | None:
    """The true labels as integers, if there are any; the network may lack their classes."""
    if labels is None:
        return None
    if len(labels) != n_test:
        raise InvalidValueError("test_labels", _OWNER, f"one label for each of {n_test} test points", len(labels))
    numbers = (label.item() if hasattr(label, "item") else label for label in labels)
    return [check_integer(number, "test_labels", _OWNER, minimum=0) for number in numbers]


def _image_batches(batches: list[Any]) -> list[Tensor] | None:
    """The batches, if they are images; None for anything else, such as tuples, dictionaries, rows or tokens."""
    tensors = [batch.cpu() for batch in batches if isinstance(batch, Tensor)]
    if len(tensors) < len(batches) or any(batch.ndim != 4 or batch.shape[1] not in (1, 3) for batch in tensors):
        return None
    return tensors


def _train_images(method: DataAttribution, indices: list[list[int]], to_display: ToDisplay | None) -> dict[int, str]:
    """The training images that appear on the page, by position."""
    wanted = sorted({index for of_test in indices for index in of_test})
    return {
        index: data_uri(display_image(method.training_inputs(torch.tensor([index]))[0], to_display, _OWNER))
        for index in wanted
    }


def _card(
    test: int,
    top: TopPoints,
    facts: _Facts,
    labels: list[int] | None,
    images: list[str] | None,
    train_images: dict[int, str],
    maps: Heatmaps,
    needed: int,
) -> dict[str, Any]:
    """What the template shows of one test point."""
    groups: dict[str, list[dict[str, Any]]] = {"proponent": [], "opponent": []}
    for kind, rank, index, score in top.of(test):
        point = {
            "rank": rank,
            "id": top.train_id(index),
            "label": top.class_name(int(top.train_labels[index])),
            "score": f"{score:+.3g}",
            "image": train_images.get(index),
            "pair": maps.pairs.get(index),
        }
        groups[kind].append(point)
    decision = int(facts.decisions[test])
    surrogate = None if facts.surrogate is None else int(facts.surrogate[test])
    label = None if labels is None else labels[test]
    return {
        "number": test,
        "id": top.test_ids[test],
        "explained": top.class_name(int(top.target[test])),
        "decision": top.class_name(decision),
        "confidence": f"{float(facts.confidence[test]):.3f}",
        "label": None if label is None else top.class_name(label),
        "wrong": label is not None and label != decision,
        "surrogate": None if surrogate is None else top.class_name(surrogate),
        "disagrees": surrogate is not None and surrogate != decision,
        "needed": needed,
        "strongest": float(top.proponent_scores[test, 0]),
        "image": None if images is None else images[test],
        "groups": groups,
        "warning": maps.warning,
    }


def _network_rows(method: DataAttribution, facts: _Facts) -> list[tuple[str, str]]:
    """The summary of the network, the data and the method."""
    n_parameters = sum(parameter.numel() for parameter in method.model.parameters())
    rows = [
        ("network", f"{type(method.model).__name__}, {n_parameters:,} parameters"),
        ("penultimate layer", f"input of {method.extractor.layer_name!r}, {facts.n_features:,} features"),
        ("training points", f"{method.n_train_:,}"),
        ("classes", f"{method.n_classes_:,}"),
        ("test points on this page", f"{len(facts.decisions):,}"),
        ("method", method.get_name()),
    ]
    if (solution := getattr(method, "solution_", None)) is not None:
        rows.append(("C", f"{solution.C:g}"))
    if isinstance(method, FeatureKernelAttribution):
        share = len(method.support_indices_) / method.n_train_
        rows.append(("support points", f"{len(method.support_indices_):,} ({share:.1%} of the training points)"))
    return rows


def _agreement_rows(facts: _Facts, labels: list[int] | None) -> list[tuple[str, str]]:
    """How far the surrogate agrees with the network, and the network with the labels."""
    rows = []
    if labels is not None:
        right = (facts.decisions == torch.tensor(labels)).double().mean()
        rows.append(("the network's decision is the label", f"{float(right):.1%}"))
    if facts.surrogate is not None and facts.correlation is not None:
        same = (facts.surrogate == facts.decisions).double().mean()
        rows.append(("the surrogate decides as the network does", f"{float(same):.1%}"))
        rows.append(("correlation of their centred logits", f"{facts.correlation:.3f}"))
    return rows


def _certificate_rows(method: DataAttribution) -> list[tuple[str, str]]:
    """The solver's certificate, of a method that has one."""
    solution = getattr(method, "solution_", None)
    if solution is None:
        return []
    return [
        ("primal objective", f"{solution.primal_objective:.10g}"),
        ("dual objective", f"{solution.dual_objective:.10g}"),
        ("relative duality gap", f"{solution.duality_gap:.2e}"),
        ("tolerance reached", "yes" if solution.converged else "no: raise time_limit or max_iter, or lower C"),
        ("screens of the training set", f"{solution.n_iter:,}"),
    ]


def _score_row(score: Scores) -> dict[str, str]:
    """A row of the table of scores."""
    interval = score.interval()
    return {
        "metric": score.metric,
        "method": score.method,
        "mean": f"{score.mean:.3f}",
        "interval": "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
        "n": f"{score.finite.size:,}",
        "seconds": "–" if score.seconds is None else f"{score.seconds:.1f}",
    }


def _versions() -> str:
    """The versions that made the page."""
    return f"dualview_plugin {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
