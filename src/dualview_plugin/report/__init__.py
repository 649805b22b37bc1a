"""What to show a colleague: tables of the strongest training points, and one self-contained HTML page."""

from dualview_plugin.report.page import write_report
from dualview_plugin.report.scores import Scores
from dualview_plugin.report.top_points import TopPoints, top_points

__all__ = ["Scores", "TopPoints", "top_points", "write_report"]
