"""The paper's Table 1: what every method costs, ours and the neighbours', on the same network and data in one run.

    python -m benchmarks.table1 --data mnist [--only NAME ...] [--budget SECONDS]

Each method runs in a process of its own. Memory is the peak beyond what network and data take, and what stays after the
fit, measured and by formula. Ratios are between medians. Resumable: what ``results/table1/<data>/rows.jsonl`` holds
with the same settings is not measured again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import datasets, measuring
from benchmarks.arguments import common_parser, setting_name
from benchmarks.contestants import OURS, Case, our_options
from benchmarks.measuring import Job
from benchmarks.neighbours import INSTALL, NEIGHBOURS
from benchmarks.record import environment, write_csv
from benchmarks.rows import Rows
from benchmarks.worlds import SETTINGS, make_world

Row = dict[str, Any]
METHODS = (*OURS, *NEIGHBOURS)
KEYS = (  # what identifies a row
    *("seed", "network", "recipe", "device", "threads", "n_explained", "fits", "budget"),
    *("method", "n_train", "options"),
)


def main(arguments: Iterable[str] | None = None) -> list[Row]:
    chosen = parsed(arguments)
    name = f"table1-{setting_name(chosen)}"
    data = datasets.load(chosen.data, chosen.root, download=chosen.download)
    store = Rows("table1", setting_name(chosen), chosen.results)
    rows = store.flat()
    wanted = wanted_settings(chosen, len(data.train))
    missing = [settings for settings in wanted if _found(rows, settings) is None]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.pt"
        if missing:
            measuring.save_case(make_case(chosen, data), path)
        for settings in tqdm(missing, desc=name):
            rows.append(measured(settings, path))
            store.store(rows[-1], KEYS)
    present = [row for settings in wanted if (row := _found(rows, settings))]
    if present:
        write_csv(name, summary(present), chosen.results)
        print(as_markdown(present), notes(present), ratios_as_markdown(ratios(present)), sep="\n\n")
    return rows


def wanted_settings(chosen: argparse.Namespace, n_train: int) -> list[Row]:
    """What identifies each measurement; rows that agree in all of it are not measured again."""
    setting = SETTINGS[setting_name(chosen)]
    common = {
        "seed": chosen.seed,
        "network": setting.label,
        "recipe": asdict(setting.recipe),
        "device": chosen.device,
        "threads": torch.get_num_threads(),
        "n_explained": chosen.n_explained,
        "fits": chosen.fits,
        "budget": chosen.budget,
    }
    return [
        {**common, "method": method, "n_train": n, "options": options_of(method, chosen.data)}
        for method, n in jobs(installed(chosen.only), chosen.data, n_train)
    ]


def make_case(chosen: argparse.Namespace, data: datasets.ImageData) -> Case:
    """The standard world, its network trained or loaded, and the network's decisions to explain."""
    world = make_world(
        "standard",
        data,
        SETTINGS[setting_name(chosen)],
        seed=chosen.seed,
        n_test=chosen.n_explained,
        device=chosen.device,
        checkpoints=chosen.checkpoints,
    )
    decisions = torch.as_tensor(world.decisions)
    return Case(chosen.data, world.network, world.train, world.x_test, decisions, chosen.device)


def parsed(arguments: Iterable[str] | None) -> argparse.Namespace:
    parser = common_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the network's training")
    parser.add_argument("--fits", type=int, default=10)
    parser.add_argument("--n-explained", type=int, default=50)
    parser.add_argument("--budget", type=float, default=600, help="seconds a method, after which no fit is repeated")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    return parser.parse_args(None if arguments is None else list(arguments))


def installed(methods: list[str]) -> list[str]:
    """The methods whose package is there; prints what the others need."""
    present = []
    for method in methods:
        missing = NEIGHBOURS[method].missing() if method in NEIGHBOURS else []
        if missing:
            print(f"{method} left out: no module {', '.join(missing)}; {INSTALL}")
        else:
            present.append(method)
    return present


def jobs(methods: list[str], data_name: str, n_train: int) -> list[tuple[str, int]]:
    """Methods with numbers of training points; at a neighbour's smaller number, our matching methods too."""
    pairs: list[tuple[str, int]] = []
    for method in methods:
        neighbour = NEIGHBOURS.get(method)
        most = n_train if neighbour is None else min(n_train, neighbour.most.get(data_name, n_train))
        pairs.append((method, most))
        if neighbour is not None and most < n_train:
            pairs += [(ours, most) for ours in neighbour.matches]
    return list(dict.fromkeys(pairs))


def options_of(method: str, data_name: str) -> Row:
    """The method's own parameters."""
    return NEIGHBOURS[method].options(data_name) if method in NEIGHBOURS else our_options(method, data_name)


def measured(settings: Row, case: Path) -> Row:
    """The settings with what was measured, the commit, and the machine's load when the method started."""
    load = os.getloadavg()[0]
    job = Job(str(case), settings["method"], settings["n_train"], settings["fits"], settings["budget"])
    row = {**settings, **measuring.in_a_process(job), "load": load, "commit": environment()["commit"]}
    tqdm.write(f"{row['method']:20} {row['n_train']:6}  fit {_times(row, 'fit')} s  explain {_times(row, 'explain')} s")
    return row


def summary(rows: list[Row]) -> list[Row]:
    """Mean, deviation and median of the times, and the memory, one row for each method and number of points."""
    table = []
    for row in rows:
        times = {}
        for phase in ("fit", "explain"):
            values = row[f"{phase}_seconds"]
            times[f"{phase}_seconds_mean"] = statistics.fmean(values)
            times[f"{phase}_seconds_std"] = _deviation(values)
            times[f"{phase}_seconds_median"] = statistics.median(values)
        plain = ("fit_peak_mib", "explain_peak_mib", "measured_kept_mib", "keeps", "keeps_mib", "note")
        sizes = {key: row[key] for key in ("method", "n_train", "n_explained")}
        table.append({**sizes, "n_fits": len(row["fit_seconds"]), **times, **{key: row[key] for key in plain}})
    return table


def ratios(rows: list[Row]) -> list[Row]:
    """Neighbour / ours for each pair that was measured at the same number of training points, of medians."""
    medians = {(row["method"], row["n_train"]): _medians(row) for row in rows}
    table = []
    for (method, n_train), theirs in medians.items():
        for match in NEIGHBOURS[method].matches if method in NEIGHBOURS else ():
            ours = medians.get((match, n_train))
            if ours is not None:
                quotients = {phase: theirs[phase] / ours[phase] for phase in ours}
                if not NEIGHBOURS[method].has_fit:
                    quotients["fit"] = None
                table.append({"pair": f"{method} / {match}", "n_train": n_train, **quotients})
    return table


def as_markdown(rows: list[Row]) -> str:
    """Times and memory as a Markdown table."""
    header = f"| method | training points | fits | fit, s | {rows[0]['n_explained']} explanations, s | "
    header += "peak in fit, MiB | peak in explanations, MiB | kept, MiB | kept by formula, MiB | formula, bytes |"
    lines = [header, "|---" * 10 + "|"]
    for row in rows:
        memory = [row[key] for key in ("fit_peak_mib", "explain_peak_mib", "measured_kept_mib", "keeps_mib")]
        cells = [row["method"], f"{row['n_train']:,}", str(len(row["fit_seconds"]))]
        cells += [_times(row, "fit"), _times(row, "explain"), *(f"{value:,.1f}" for value in memory)]
        lines.append("| " + " | ".join([*cells, f"`{row['keeps']}`"]) + " |")
    return "\n".join(lines)


def notes(rows: list[Row]) -> str:
    """What to know when the figures are compared, as a Markdown list."""
    found = [f"- {row['method']}: {note}" for row in rows for note in (row["note"], *row["warnings"]) if note]
    return "\n".join(dict.fromkeys(found))


def ratios_as_markdown(table: list[Row]) -> str:
    """The ratios as a Markdown table; empty if there is no pair."""
    if not table:
        return ""
    lines = ["| pair | training points | fit | explanations | both |", "|---|---|---|---|---|"]
    for row in table:
        values = ("no fit" if row[phase] is None else f"{row[phase]:.3g}" for phase in ("fit", "explain", "both"))
        lines.append(f"| {row['pair']} | {row['n_train']:,} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _medians(row: Row) -> dict[str, float]:
    """Of the fits, of the explanations, and of both together."""
    fit, explain = row["fit_seconds"], row["explain_seconds"]
    both = [a + b for a, b in zip(fit, explain, strict=True)]
    return {"fit": statistics.median(fit), "explain": statistics.median(explain), "both": statistics.median(both)}


def _times(row: Row, phase: str) -> str:
    values = row[f"{phase}_seconds"]
    return f"{statistics.fmean(values):.3g}" + (f" ± {_deviation(values):.2g}" if len(values) > 1 else "")


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def _found(rows: list[Row], settings: Row) -> Row | None:
    """The row with these settings."""
    return next((row for row in rows if all(row.get(key) == value for key, value in settings.items())), None)


if __name__ == "__main__":
    main()
