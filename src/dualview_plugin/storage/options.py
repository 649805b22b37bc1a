"""What a user may choose about the store of a method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.validation import check_flag, check_integer, check_option

_OWNER = "Storage"


@dataclass(frozen=True)
class Storage:
    """Where and how a method keeps what it computes from the training data; a value of ``cache_dir``.

    Args:
        folder: where the stores lie, one for each network, dataset, layer and set of parameters; made at once.
        dtype: of stored features and projected gradients: ``"float32"``, ``"float16"``, ``"bfloat16"``; None: the
            precision that they were computed in. The half types take half the room, and round what the fit sees.
        shard_size: training points in a shard, the unit that is written, checked and resumed; None: 1,024, or more
            where that would give over 2,048 shards.
        verify: how a store is recognised as one of these data. ``"probe"``: data in memory are digested whole; of data
            that are decoded one by one, 128 samples are read, and names, sizes and times of files are compared.
            ``"full"``: all samples are read and compared with the digests that were taken when they were stored.
        engine: who computes the shards that are missing. ``"local"``: this process. ``"ranks"``: the processes of
            torchrun or SLURM, which share ``folder``. ``"ray"`` or a ``RayEngine``: a pool of Ray actors.
        results: whether to keep, and to hand to the engine, what is made of features and gradients too: solutions and
            factors of a fit, and attributions of methods that pass over the training data for each block of test
            points. ``attribute`` keeps n_test · n_train numbers, ``influence(k)`` 2 · k · n_test for each shard.
            False: they are computed by this process at every call, and not kept.

    Raises:
        InvalidTypeError, InvalidValueError: a parameter breaks its constraint, or the folder cannot be made.

    Example:
        >>> import tempfile
        >>> from dualview_plugin import Storage
        >>> storage = Storage(tempfile.mkdtemp(), dtype="float16", verify="full")
        >>> storage.shard_size is None
        True
    """

    folder: str | Path
    dtype: str | None = None
    shard_size: int | None = None
    verify: str = "probe"
    engine: Any = "local"
    results: bool = True

    def __post_init__(self) -> None:
        make_folder(self.folder, "folder", _OWNER)
        if self.dtype is not None:
            check_option(self.dtype, "dtype", _OWNER, ("float32", "float16", "bfloat16"))
        if self.shard_size is not None:
            check_integer(self.shard_size, "shard_size", _OWNER)
        check_option(self.verify, "verify", _OWNER, ("probe", "full"))
        if isinstance(self.engine, str):
            check_option(self.engine, "engine", _OWNER, ("local", "ranks", "ray"))
        check_flag(self.results, "results", _OWNER)

    @classmethod
    def of(cls, value: object, owner: str) -> Storage | None:
        """The storage that an argument ``cache_dir`` means; None keeps nothing."""
        if value is None or isinstance(value, Storage):
            return value
        return cls(make_folder(value, "cache_dir", owner))


def make_folder(folder: Any, parameter: str, owner: str) -> Path:
    """The folder, made if it is not there.

    Raises:
        InvalidValueError: it cannot be made.
    """
    try:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, ValueError) as error:
        raise InvalidValueError(
            parameter, owner, "a folder that can be written, or None", f"{folder!r} ({error})"
        ) from error
    return path
