"""The Crammer-Singer dual: arrays in, a certified sparse solution out."""

from dualview_plugin.solver.regularization_path import solve_path
from dualview_plugin.solver.screening.monitor import SolverProgress
from dualview_plugin.solver.solution import CrammerSingerSolution
from dualview_plugin.solver.solve import solve_crammer_singer

__all__ = ["CrammerSingerSolution", "SolverProgress", "solve_crammer_singer", "solve_path"]
