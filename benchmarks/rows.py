"""Results as rows in append-only files, each row with all that is needed to repeat it.

``results/<experiment>/<setting>/rows.jsonl`` has one JSON object a line: ``arguments``, which identify the measurement,
its ``result``, and the ``environment``: machine, versions, commit, date. The last row of the same arguments counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.record import RESULTS, environment

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """The rows of one experiment in one setting.

    Attributes:
        experiment: name of the experiment, and of its folder.
        setting: name of the setting, and of its folder in that of the experiment.
        folder: of all results.
    """

    experiment: str
    setting: str
    folder: Path = RESULTS

    @property
    def path(self) -> Path:
        """The file, which need not be there."""
        return self.folder / self.experiment / self.setting / "rows.jsonl"

    def read(self) -> list[Row]:
        """The rows that count, in the order of their first measurement."""
        latest: dict[str, Row] = {}
        for row in self.history():
            latest[_key(row["arguments"])] = row
        return list(latest.values())

    def history(self) -> list[Row]:
        """All rows ever written. A last line that was broken off in writing is left out."""
        if not self.path.exists():
            return []
        *whole, last = self.path.read_text().split("\n")
        return [json.loads(line) for line in whole if line] + ([json.loads(last)] if _is_whole(last) else [])

    def find(self, arguments: Mapping[str, Any]) -> Row | None:
        """The row of exactly these arguments."""
        wanted = _key(arguments)
        return next((row for row in self.read() if _key(row["arguments"]) == wanted), None)

    def append(self, arguments: Mapping[str, Any], result: Mapping[str, Any], origin: Row | None = None) -> Row:
        """Add a row; ``origin`` is the environment of a measurement that was made elsewhere, None: this one."""
        row: Row = {
            "arguments": arguments,
            "result": result,
            "environment": _environment() if origin is None else origin,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.read_text().endswith("\n"):
            self.path.write_text("".join(json.dumps(old) + "\n" for old in self.history()))
        with self.path.open("a") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return row

    def flat(self) -> list[Row]:
        """The rows that count, arguments and result in one dictionary each."""
        return [{**row["arguments"], **row["result"]} for row in self.read()]

    def store(self, row: Row, keys: Collection[str]) -> None:
        """Add a row that is one dictionary; ``keys`` name its arguments."""
        arguments = {key: row[key] for key in row if key in keys}
        self.append(arguments, {key: value for key, value in row.items() if key not in keys})

    def run(self, jobs: Iterable[Mapping[str, Any]], measure: Callable[[Row], Mapping[str, Any]]) -> list[Row]:
        """The rows of these arguments; those that are not there are measured and written one by one."""
        wanted = [dict(job) for job in jobs]
        _environment()  # the commit at the start
        for arguments in tqdm(wanted, desc=f"{self.experiment}/{self.setting}"):
            if self.find(arguments) is None:
                self.append(arguments, measure(arguments))
        keys = {_key(arguments) for arguments in wanted}
        return [row for row in self.read() if _key(row["arguments"]) in keys]


def settings_of(experiment: str, folder: Path = RESULTS) -> list[str]:
    """The settings of an experiment that have rows."""
    return sorted(path.parent.name for path in (folder / experiment).glob("*/rows.jsonl"))


@cache
def _environment() -> Row:
    """Of this process: the commit is that at its start."""
    return environment()


def _key(arguments: Mapping[str, Any]) -> str:
    """What two equal arguments have in common, in whatever order."""
    return json.dumps(arguments, sort_keys=True, ensure_ascii=False)


def _is_whole(line: str) -> bool:
    """Whether a line without an end is a row all the same."""
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True
