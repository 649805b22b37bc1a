"""What was computed once, kept on disk: shards with their checksums, and fitted explainers."""

from dualview_plugin.storage.arrays import dtype_name, mapped_array
from dualview_plugin.storage.checksums import checksum
from dualview_plugin.storage.options import Storage
from dualview_plugin.storage.report import StoreReport
from dualview_plugin.storage.shards import Column, ShardStore, StoreIdentity, shard_size_for

__all__ = [
    "Column",
    "ShardStore",
    "Storage",
    "StoreIdentity",
    "StoreReport",
    "checksum",
    "dtype_name",
    "mapped_array",
    "shard_size_for",
]
