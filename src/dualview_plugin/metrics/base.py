"""What every metric of data attributions has in common: Quantus' call and the stream of attribution rows."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypedDict, Unpack, get_args

import numpy as np
from captum.influence import DataInfluence
from numpy.typing import NDArray
from quantus.functions.normalise_func import normalise_by_max
from quantus.helpers import utils, warn
from quantus.helpers.enums import DataType, EvaluationCategory, ModelType, ScoreDirection
from quantus.helpers.model.model_interface import ModelInterface
from quantus.metrics.base import Metric
from torch import nn
from tqdm.auto import tqdm

from dualview_plugin.batches import n_rows, rows_of
from dualview_plugin.data import as_batch
from dualview_plugin.errors import InvalidTypeError, InvalidValueError, NotApplicableWarning
from dualview_plugin.metrics.arguments import check_attributions
from dualview_plugin.metrics.sources import AttributionCallable, AttributionSource, source_of
from dualview_plugin.metrics.sources.arrays import Array, TestArrays, to_array
from dualview_plugin.validation import check_integer, check_option

ExplainedClass = Literal["y_batch", "decision"]


class MetricOptions(TypedDict, total=False):
    """The keyword arguments that every metric takes; :class:`DataAttributionMetric` documents them."""

    explained_class: ExplainedClass
    abs: bool
    normalise: bool
    normalise_func: Callable[[Array], Array] | None
    normalise_func_kwargs: dict[str, Any] | None
    return_aggregate: bool
    aggregate_func: Callable[..., Any] | None
    default_plot_func: Callable[..., Any] | None
    disable_warnings: bool
    display_progressbar: bool


_DEFAULTS = MetricOptions(
    explained_class="y_batch",
    abs=False,
    normalise=False,
    normalise_func=None,
    normalise_func_kwargs=None,
    return_aggregate=False,
    aggregate_func=None,
    default_plot_func=None,
    disable_warnings=False,
    display_progressbar=False,
)


@dataclass(frozen=True)
class AttributionRows:
    """Attributions of a few consecutive test points.

    Attributes:
        attributions: (n_rows, n_train), finite.
        y: their entries of ``y_batch``, (n_rows,).
        test_indices: which test points they are.
        inputs: their inputs, (n_rows, …).
    """

    attributions: Array
    y: NDArray[np.int64]
    test_indices: slice
    inputs: TestArrays


class DataAttributionMetric(Metric[list[float]]):
    """A Quantus metric that scores attributions to training points, (n_test, n_train), instead of to input features.

    The matrix is ``a_batch`` if that is one. Else it comes, in blocks, from ``explain_func``: a
    :class:`~dualview_plugin.attribution.DataAttribution`, a ``captum.influence.DataInfluence``, or a function marked
    with ``data_attribution``. Other methods, such as saliency, score NaN with one warning. If ``x_batch`` has the shape
    (n_test, n_train), ``a_batch`` is ambiguous: it is used only if ``explain_func`` is None.

    The scores are those of the network that the metric is called with. A method of this package that was made for
    another network is fitted to this one, and keeps that fit. An influence object of Captum refuses another network. A
    precomputed matrix stays what it is, whatever the network.

    Args:
        explained_class: ``"y_batch"``: the attributions explain the classes in ``y_batch``, as everywhere in Quantus.
            ``"decision"``: they explain the network's decisions, and ``y_batch`` is what they are scored against (for
            the paper's reference code: the true labels). This option has no effect on a precomputed matrix.
        abs: take absolute values, so that strong opponents count as strong proponents do.
        normalise: normalise each test point's attributions, before ``abs``.
        normalise_func: applied to each test point's attributions (n_train,); None: division by the largest magnitude.
        normalise_func_kwargs: passed to ``normalise_func``.
        return_aggregate: return one score, ``[aggregate_func(scores)]``.
        aggregate_func: None: the mean.
        default_plot_func: what ``plot`` calls if it gets no function.
        disable_warnings: do not warn where the metric does not apply.
        display_progressbar: a progress bar over the test points.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint.

    Note:
        A subclass implements ``_score`` and ``_check_sizes``.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import DataAttributionMetric
        >>> class Largest(DataAttributionMetric):
        ...     def _check_sizes(self, n_test, n_train):
        ...         pass
        ...     def _score(self, rows, source):
        ...         return [value for part in rows for value in part.attributions.max(axis=1).tolist()]
        >>> Largest()(None, np.zeros((2, 4)), np.array([1, 1]), a_batch=np.array([[0.0, 0.5], [2.0, 1.0]]))
        [0.5, 2.0]
    """

    name = "Data Attribution"
    data_applicability: ClassVar[set[DataType]] = {DataType.IMAGE, DataType.TIMESERIES, DataType.TABULAR}
    model_applicability: ClassVar[set[ModelType]] = {ModelType.TORCH}
    score_direction = ScoreDirection.HIGHER
    evaluation_category = EvaluationCategory.NONE  # Quantus' enumeration has no category for data attributions
    interpretation: ClassVar[str]
    reads_input_maps: ClassVar[bool] = False  # ``quantus.evaluate`` needs no input map for this metric

    def __init__(self, **options: Unpack[MetricOptions]) -> None:
        chosen: dict[str, Any] = {**_DEFAULTS, **options}
        explained_class = chosen.pop("explained_class")
        super().__init__(**chosen)
        self.explained_class: ExplainedClass = check_option(
            explained_class, "explained_class", self._owner, get_args(ExplainedClass)
        )

    # ------------------------------------------------------------------ what a metric implements

    @abstractmethod
    def _score(self, rows: Iterator[AttributionRows], source: AttributionSource) -> list[float]:
        """The scores, from all rows, in order; ``source`` has the training labels and the self-influence."""

    @abstractmethod
    def _check_sizes(self, n_test: int, n_train: int) -> None:
        """Refuse what the metric was built with if it does not fit so many test and training points."""

    def _n_scores(self, n_test: int) -> int:
        """How many scores a call with this many test points gives."""
        return n_test

    # ------------------------------------------------------------------ Quantus' calls

    def __call__(
        self,
        model: Any,
        x_batch: Any,
        y_batch: Array,
        a_batch: Array | None = None,
        s_batch: Array | None = None,
        channel_first: bool | None = None,
        explain_func: Callable[..., Any] | DataInfluence | None = None,
        explain_func_kwargs: Mapping[str, Any] | None = None,
        model_predict_kwargs: Mapping[str, Any] | None = None,
        softmax: bool | None = False,
        device: str | None = None,
        batch_size: int = 64,
        **kwargs: Any,
    ) -> list[float]:
        """Score the attributions of a batch of test points.

        Args:
            model: the network, or Quantus' wrapper of it; None: the network that the method was made for.
            x_batch: test inputs, (n_test, …); also a structured array, or tuples and dictionaries of arrays or tensors.
            y_batch: classes, (n_test,): see ``explained_class``.
            a_batch: attributions (n_test, n_train), dense or sparse; anything else is ignored.
            channel_first: False if the inputs' channels are last: they are moved first.
            explain_func: where the attributions come from if ``a_batch`` is no matrix.
            explain_func_kwargs: passed to a marked function.
            device: passed to a marked function.
            batch_size: test points at a time, for a source that has no block size of its own.
            s_batch: without effect.
            model_predict_kwargs: without effect.
            softmax: without effect.
            **kwargs: refused, as everywhere in Quantus.

        Returns:
            One score for each test point, or for the whole batch where the metric says so.

        Raises:
            InvalidTypeError, InvalidValueError: an argument, or the attributions, break their constraint.

        Cost: memory O(block × n_train).
        """
        del s_batch, model_predict_kwargs, softmax
        warn.deprecation_warnings(kwargs)
        warn.check_kwargs(kwargs)  # type: ignore[no-untyped-call]
        inputs = self._checked_x(x_batch, channel_first)
        y = self._checked_y(y_batch, n_rows(inputs))
        arguments = dict(explain_func_kwargs or {})
        if device is not None:
            arguments.setdefault("device", device)
        self.method_name = str(arguments.get("method", "attributions"))
        size = check_integer(batch_size, "batch_size", self._owner)
        network = self._network(model, explain_func)
        source = source_of(inputs, a_batch, explain_func, network, arguments, size, self._owner)
        self.evaluation_scores = self._aggregated(self._scores(inputs, y, source))
        self.all_evaluation_scores.extend(self.evaluation_scores)
        return list(self.evaluation_scores)

    def interpret_scores(self) -> None:
        """Print what the scores mean."""
        print(self.interpretation)

    # ------------------------------------------------------------------ the flow of rows

    def _scores(self, inputs: TestArrays, y: NDArray[np.int64], source: AttributionSource | None) -> list[float]:
        """The metric's scores, or NaN and a warning where it does not apply."""
        n_test = n_rows(inputs)
        if n_test == 0:
            return self._not_applicable(1, "there are no test points")
        if source is None:
            reason = f"{self.method_name} gives no attributions to training points (a_batch, explain_func)"
            return self._not_applicable(self._n_scores(n_test), reason)
        if source.n_train is not None:  # else the first block tells
            self._check_sizes(n_test, source.n_train)
        return self._score(self._rows(inputs, y, source), source)

    def _rows(self, inputs: TestArrays, y: NDArray[np.int64], source: AttributionSource) -> Iterator[AttributionRows]:
        """The attributions in consecutive blocks: checked, normalised and made absolute as asked."""
        start, n_test = 0, n_rows(inputs)
        target = y if self.explained_class == "y_batch" else None
        with tqdm(total=n_test, desc=self.name, disable=not self.display_progressbar) as progress:
            for block in source.blocks(inputs, target):
                self._check_block(block)
                if start == 0:
                    self._check_sizes(n_test, block.shape[1])
                rows = slice(start, start + len(block))
                yield AttributionRows(self._preprocessed(block), y[rows], rows, rows_of(inputs, rows))
                start = rows.stop
                progress.update(len(block))
        if start != n_test:
            raise self._error("attributions", f"one row for each of the {n_test} test points", f"{start} rows")

    def _check_block(self, block: Array) -> None:
        """Refuse what is no block of finite attributions to the training points."""
        check_attributions(block, self._owner)

    def _preprocessed(self, block: Array) -> Array:
        """The block after Quantus' ``normalise``, for each test point by itself, and ``abs``."""
        if not np.issubdtype(block.dtype, np.floating):
            block = block.astype(np.float64)
        if self.normalise and self.normalise_func is normalise_by_max:
            largest = np.abs(block).max(axis=1, keepdims=True)
            block = np.divide(block, largest, out=np.zeros_like(block), where=largest > 0)
        elif self.normalise and self.normalise_func is not None:
            block = np.stack([self.normalise_func(row.copy()) for row in block])  # which may write to it
        return np.abs(block) if self.abs else block

    def _not_applicable(self, n_scores: int, reason: str) -> list[float]:
        """NaN scores, with one warning."""
        if not self._disable_warnings:
            message = f"{self._owner} does not apply and scores NaN: {reason}"
            warnings.warn(message, NotApplicableWarning, stacklevel=4)
        return [float("nan")] * n_scores

    def _aggregated(self, scores: list[float]) -> list[float]:
        """One score for all, if that was asked for."""
        return [float(self.aggregate_func(scores))] if self.return_aggregate else scores

    def _network(self, model: Any, explain_func: Any) -> Any:
        """The network out of Quantus' wrapper; anything for a function of the user's own, else a module or None."""
        network: Any = model.get_model() if isinstance(model, ModelInterface) else model  # type: ignore[no-untyped-call]
        is_users = isinstance(explain_func, AttributionCallable) and not isinstance(explain_func.source, DataInfluence)
        if network is not None and not isinstance(network, nn.Module) and not is_users:
            constraint = "a torch.nn.Module, Quantus' wrapper of one, or None"
            raise InvalidTypeError("model", self._owner, constraint, type(network).__name__)
        return network

    def _checked_x(self, x_batch: Any, channel_first: bool | None) -> TestArrays:
        """``x_batch`` as an array with its channels first, or as a batch of several tensors."""
        if isinstance(x_batch, (tuple, Mapping)):
            return as_batch(x_batch, self._owner, "x_batch")
        array: Array = utils.make_channel_first(to_array(x_batch), channel_first is not False)
        return array

    def _checked_y(self, y_batch: Any, n_test: int) -> NDArray[np.int64]:
        """``y_batch`` as integers, one for each test point."""
        y = to_array(y_batch)
        if y.size and not np.issubdtype(y.dtype, np.integer):
            raise InvalidTypeError("y_batch", self._owner, "integer classes", f"values of type {y.dtype}")
        if y.shape != (n_test,):
            raise self._error("y_batch", f"one class for each of the {n_test} test points", f"shape {y.shape}")
        return y.astype(np.int64)

    def _error(self, parameter: str, constraint: str, value: object) -> InvalidValueError:
        return InvalidValueError(parameter, self._owner, constraint, value)

    @property
    def _owner(self) -> str:
        return type(self).__name__
