"""Who computes the shards that are missing: this process, the ranks of torchrun or SLURM, or a pool of Ray actors."""

from dualview_plugin.engines.choice import engine_of
from dualview_plugin.engines.local import LocalEngine
from dualview_plugin.engines.ranks import RanksEngine
from dualview_plugin.engines.ray_pool import RayEngine
from dualview_plugin.engines.work import Engine, ShardWork, SumWork

__all__ = ["Engine", "LocalEngine", "RanksEngine", "RayEngine", "ShardWork", "SumWork", "engine_of"]
