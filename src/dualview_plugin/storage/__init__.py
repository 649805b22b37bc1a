"""What was computed once, kept on disk: shards with their checksums, and fitted explainers."""

from dualview_plugin.storage.arrays import dtype_name, mapped_array
from dualview_plugin.storage.checksums import checksum
from dualview_plugin.storage.files import DamagedFileError, remove_leftovers, write_whole
from dualview_plugin.storage.locks import Claim
from dualview_plugin.storage.options import Storage
from dualview_plugin.storage.report import StoreReport
from dualview_plugin.storage.saved import read_saved, write_saved
from dualview_plugin.storage.shards import Column, ShardStore, StoreIdentity, shard_size_for

__all__ = [
    "Claim",
    "Column",
    "DamagedFileError",
    "ShardStore",
    "Storage",
    "StoreIdentity",
    "StoreReport",
    "checksum",
    "dtype_name",
    "mapped_array",
    "read_saved",
    "remove_leftovers",
    "shard_size_for",
    "write_saved",
    "write_whole",
]
