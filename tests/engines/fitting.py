"""One of several processes that fill a store, ``python -m tests.engines.fitting ENGINE FOLDER``; prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.storage.worlds import TEST, Decoded, dualview


class Slow(Decoded):
    """Three milliseconds for each sample."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.003)
        return super().__getitem__(index)


if __name__ == "__main__":
    method = dualview(Path(sys.argv[2]), Slow(400), engine=sys.argv[1]).fit()
    assert method.store_ is not None
    values = method.attribute(TEST).tolist()
    print(json.dumps({"computed": method.store_.n_computed, "shards": method.store_.n_shards, "values": values}))
