"""The methods and metrics that the command offers, by name; names alone, so that it is read at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MethodEntry:
    """A method of the command.

    Attributes:
        class_name: its public name in ``dualview_plugin``.
        use: when to use it.
        options: arguments beside the common ones.
        takes_c: whether it takes the task's C.
    """

    class_name: str
    use: str
    options: dict[str, Any] = field(default_factory=dict)
    takes_c: bool = False


@dataclass(frozen=True)
class MetricEntry:
    """A metric of the command.

    Attributes:
        class_name: its public name in ``dualview_plugin``.
        question: what it asks.
        needs: the fields of a task that it takes, in the order of its arguments.
        options: its other arguments.
        python_only: what else it needs, where the command cannot give it.
    """

    class_name: str
    question: str
    needs: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    python_only: str = ""

    @property
    def needs_text(self) -> str:
        """What a task must have for it, as a sentence part."""
        if self.python_only:
            return f"from Python alone: it needs {self.python_only}"
        return f"a task with {', '.join(self.needs)}" if self.needs else ""


METHODS: dict[str, MethodEntry] = {
    "dualview": MethodEntry(
        "DualView",
        "First choice: sparse, a certificate, milliseconds for each test point, heatmaps in both images.",
        takes_c=True,
    ),
    "dualda": MethodEntry("dualda", "DualView in the settings of the successor work.", takes_c=True),
    "representer": MethodEntry("RepresenterPoints", "A dense counterpart of DualView, with heatmaps too."),
    "influence": MethodEntry(
        "InfluenceFunctions", "A point's effect on the loss through the last layer; finds wrong labels."
    ),
    "similarity": MethodEntry("GradientSimilarity", "Looks at all layers; slow, needs no fit."),
    "projected-similarity": MethodEntry(
        "ProjectedGradientSimilarity", "The same after a projection; fast once it is fitted.", {"n_components": 128}
    ),
    "gradient-cosine": MethodEntry("GradCos", "Gradient similarity without the gradients' sizes."),
    "tracin": MethodEntry("TracIn", "Gradients of the loss; from Python it takes the checkpoints of a training."),
    "trak": MethodEntry("TRAK", "Projected gradients, decorrelated.", {"n_components": 128, "damping": 0.01}),
    "arnoldi": MethodEntry("ArnoldiInfluence", "Influence functions on all layers, by the Hessian's top eigenvalues."),
    "ekfac": MethodEntry("EKFACInfluence", "Influence functions on all linear and convolutional layers, by EK-FAC."),
    "feature-similarity": MethodEntry("FeatureSimilarity", "A baseline: penultimate features that look alike."),
    "input-similarity": MethodEntry("InputSimilarity", "A baseline: inputs that look alike; knows no network."),
    "random": MethodEntry("RandomAttribution", "The level of chance; put it beside every other method."),
}

METRICS: dict[str, MetricEntry] = {
    "identical-class": MetricEntry("IdenticalClass", "Does the strongest proponent have the explained class?"),
    "identical-subclass": MetricEntry(
        "IdenticalSubclass",
        "Does it have the test point's own subclass, which the network was never told?",
        ("train_subclasses", "test_subclasses"),
    ),
    "label-poisoning": MetricEntry(
        "LabelPoisoning", "Do mislabelled training points have the largest attributions?", ("poisoned_indices",)
    ),
    "domain-mismatch": MetricEntry(
        "DomainMismatch", "Is a decision that comes from a mark traced to a marked training point?", ("marked_indices",)
    ),
    "top-cardinality": MetricEntry("TopCardinality", "Are there many distinct training points on top, or a few hubs?"),
    "sparsity": MetricEntry("Sparsity", "How few training points carry an explanation?"),
    "model-randomization": MetricEntry(
        "ModelRandomization", "Do attributions change when the network's layers are randomised? 0 is best."
    ),
}

PYTHON_METRICS: dict[str, MetricEntry] = {
    "linear-datamodeling": MetricEntry(
        "LinearDatamodeling",
        "Do summed attributions predict the outputs of networks retrained on subsets?",
        python_only="a function that trains your network (retrain_on_subsets)",
    ),
    "leave-one-out": MetricEntry(
        "LeaveOneOut",
        "Do attributions rank training points by what their removal changes?",
        python_only="a function that trains your network (leave_one_out_effects)",
    ),
    "mixed-datasets": MetricEntry(
        "MixedDatasets",
        "Do the top points come from the test point's own source?",
        python_only="the source of each training and test point",
    ),
}

# What each change to a ready task's training data (--modify) makes known: fields of a task.
TRUTHS: dict[str, tuple[str, ...]] = {
    "none": (),
    "poisoned": ("poisoned_indices",),
    "grouped": ("train_subclasses", "test_subclasses"),
    "marked": ("marked_indices",),
}
