"""Where a metric gets attributions from: a matrix, one of our methods, a marked function, or an object of Captum."""

from dualview_plugin.metrics.sources.attribution_source import AttributionSource
from dualview_plugin.metrics.sources.data_attribution import AttributionCallable, data_attribution
from dualview_plugin.metrics.sources.source_choice import source_of

__all__ = ["AttributionCallable", "AttributionSource", "data_attribution", "source_of"]
