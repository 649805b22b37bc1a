"""The command line that the scripts on a data set share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import datasets
from benchmarks.record import RESULTS
from benchmarks.training import CHECKPOINTS


def common_parser(description: str | None) -> argparse.ArgumentParser:
    """Which data, where they, results and checkpoints lie, and the device; a script adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("mnist", "cifar10", "digits"), default="mnist")
    parser.add_argument("--root", default=datasets.DEFAULT_ROOT, help="the folder with MNIST/ and cifar10/")
    parser.add_argument("--download", action="store_true", help="let torchvision download what is missing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--narrow", action="store_true", help="CIFAR-10: the narrow ResNet that a CPU can train")
    parser.add_argument(
        "--quarter", action="store_true", help="CIFAR-10: a quarter of the ResNet's channels, hours on a CPU"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    return parser


def large_problem_parser(description: str | None) -> argparse.ArgumentParser:
    """Size of a made problem that lies on disk, and how far it is solved."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-train", type=int, default=1_280_000)
    parser.add_argument("--n-features", type=int, default=512)
    parser.add_argument("--n-classes", type=int, default=1000)
    parser.add_argument("--C", type=float, default=1e-4)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for the solve")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="an existing folder for a temporary one with the data")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def large_problem(chosen: argparse.Namespace) -> dict[str, Any]:
    """What identifies a row on a made problem."""
    return {key: getattr(chosen, key) for key in ("n_train", "n_features", "n_classes", "C", "tol", "limit", "seed")}


def setting_name(chosen: argparse.Namespace) -> str:
    """The key in SETTINGS, and the end of the names of result files."""
    width = "-narrow" if chosen.narrow else "-quarter" if chosen.quarter else ""
    return f"{chosen.data}{width}"
