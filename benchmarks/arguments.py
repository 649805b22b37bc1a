"""The command line that the scripts on a data set share."""

from __future__ import annotations

import argparse
from pathlib import Path

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


def setting_name(chosen: argparse.Namespace) -> str:
    """The key in SETTINGS, and the end of the names of result files."""
    width = "-narrow" if chosen.narrow else "-quarter" if chosen.quarter else ""
    return f"{chosen.data}{width}"
