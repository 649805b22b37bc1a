"""The commands and their options. Nothing heavy is imported before a command runs, so that help comes at once."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from dualview_plugin.cli.catalogue import METHODS, METRICS, PYTHON_METRICS, TRUTHS, MetricEntry
from dualview_plugin.errors import DualViewError
from dualview_plugin.version import __version__

Function = Callable[..., Any]
_METHOD = click.Choice(tuple(METHODS))
_ONE_METHOD = click.option(
    "-m", "--method", type=_METHOD, metavar="METHOD", default="dualview", show_default=True,
    help="One of those that `dualview methods` lists.",
)  # fmt: skip


def _refusals(function: Function) -> Function:
    """Show the package's errors, and those of files, as one line and leave with exit code 1."""

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except (DualViewError, OSError) as error:
            raise click.ClickException(str(error)) from error

    return called


def _task_options(function: Function) -> Function:
    """The argument TASK, and what prepares it."""
    decorators = (
        click.argument("task"),
        click.option(
            "--modify",
            "modification",
            type=click.Choice(tuple(TRUTHS)),
            default="none",
            show_default=True,
            help="A change to a ready task's training data before the network is trained: three labels in ten wrong "
            "(poisoned), classes merged in pairs (grouped), or a mark on three twos in ten (marked).",
        ),
        click.option("--epochs", type=click.IntRange(1), help="Epochs of training for a ready task's network."),
        click.option(
            "--data", type=click.Path(path_type=Path, file_okay=False), help="Folder with torchvision's data sets."
        ),
        click.option("--download", is_flag=True, help="Let torchvision download the data set into --data."),
        click.option("--n-test", type=click.IntRange(1), default=200, show_default=True, help="Test points to use."),
        click.option("--device", default="cpu", show_default=True, help="Where the network runs, such as cuda:0."),
        click.option("-C", "c", help="DualView's C, a number or auto. Default: the task's own, or 1e-3."),
        click.option("--quiet", is_flag=True, help="No progress bars."),
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return _refusals(function)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dualview")
def main() -> None:
    """Which training points made a network decide so, and can that answer be trusted?

    TASK is "digits" (offline, seconds), "mnist", "cifar10", or a function of yours as MODULE:FUNCTION. Your function
    takes no argument and returns a mapping with model, final_fc_layer, train_dataset, x_test, and as you like y_test,
    class_names, C, to_display, test_ids, train_ids, poisoned_indices, marked_indices, train_subclasses,
    test_subclasses. MODULE is found as Python finds it, the current folder first.

    \b
    A first hour:
      dualview demo                          a network, a report to look at, in a minute
      dualview explain digits -i 3 -i 7 -o two.html
      dualview evaluate digits --method dualview --method random --metric identical-class
      dualview evaluate digits --modify poisoned --metric label-poisoning
      dualview report my_project:task -o report.html

    Exit codes: 0 done, 1 refused with a reason, 2 wrong usage.
    """  # noqa: D301 (click's mark of a paragraph to keep)


@main.command()
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("dualview-demo"), show_default=True,
    help="Folder for the figure and the report.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_refusals
def demo(out: Path, quiet: bool) -> None:
    """Train a small network on scikit-learn's digits, explain it and score the explanations. Needs no download."""
    from dualview_plugin.cli.work import run_demo

    for line in run_demo(out, show_progress=not quiet):
        click.echo(line)


@main.command()
@_task_options
@click.option(
    "-m", "--method", "methods", multiple=True, type=_METHOD, metavar="METHOD", default=("dualview", "random"),
    show_default=True, help="A method to score, of those that `dualview methods` lists; several times for several.",
)  # fmt: skip
@click.option(
    "--metric", "metrics", multiple=True, type=click.Choice(tuple(METRICS)), metavar="METRIC",
    help="A metric, of those that `dualview metrics` lists; several times for several. Default: all that TASK has the "
    "truth for, but model-randomization.",
)  # fmt: skip
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write the scores as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the score of each test point.")
def evaluate(methods: tuple[str, ...], metrics: tuple[str, ...], out: Path | None, as_json: bool, **task: Any) -> None:
    """Score methods on TASK: the mean, its 95 % interval over test points, and the seconds it took."""
    from dualview_plugin.cli.json_text import as_json_text
    from dualview_plugin.cli.work import check_ready_metrics, evaluation, load, table

    check_ready_metrics(task["task"], task["modification"], metrics)
    scores = evaluation(load(**task), methods, metrics, show_progress=not task["quiet"])
    rows = [
        {
            "method": score.method,
            "metric": score.metric,
            "mean": score.mean,
            "interval": score.interval(),
            "seconds": score.seconds,
            "values": list(score.values),
        }
        for score in scores
    ]
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(as_json_text(rows, indent=1), encoding="utf-8")
    click.echo(as_json_text(rows) if as_json else table(scores))


@main.command()
@_task_options
@click.option("-i", "--index", "indices", multiple=True, required=True, type=click.IntRange(0), help="A test point.")
@_ONE_METHOD
@click.option("-k", type=click.IntRange(1), default=5, show_default=True, help="Proponents and opponents of each.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False),
    help="A figure (.png, .pdf, .svg) or a page (.html). Without it the points are printed.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the training points as JSON.")
def explain(indices: tuple[int, ...], method: str, k: int, out: Path | None, as_json: bool, **task: Any) -> None:
    """Show the strongest training points for and against the network's decision on chosen test points."""
    from dualview_plugin.cli.json_text import as_json_text, printable
    from dualview_plugin.cli.work import check_request, explanation, load

    check_request(indices, task["n_test"], out)
    found = explanation(load(**task), indices, method, k, out, show_progress=not task["quiet"])
    frame = found.to_pandas()
    click.echo(as_json_text(frame.to_dict("records")) if as_json else printable(frame.to_string(index=False)))
    if out is not None:
        click.echo(f"written: {out}", err=True)


@main.command()
@_task_options
@_ONE_METHOD
@click.option(
    "--beside", "others", multiple=True, type=_METHOD, metavar="METHOD", default=("random",), show_default=True,
    help="A method to score beside it; several times for several.",
)  # fmt: skip
@click.option("--points", type=click.IntRange(1), default=20, show_default=True, help="Test points on the page.")
@click.option("-k", type=click.IntRange(1), default=5, show_default=True, help="Proponents and opponents of each.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"),
              show_default=True, help="The file to write.")  # fmt: skip
def report(method: str, others: tuple[str, ...], points: int, k: int, out: Path, **task: Any) -> None:
    """Write one self-contained HTML page: agreement, certificate, scores, curves, and a card for each test point."""
    from dualview_plugin.cli.work import load, page

    path = page(load(**task), method, others, points, k, out, show_progress=not task["quiet"])
    click.echo(f"written: {path}")


@main.group()
def store() -> None:
    """Build, show and verify stores of features, which later fits read in place of the training set."""


_FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@store.command("build")
@_FOLDER
@_task_options
@click.option("--dtype", type=click.Choice(("float32", "float16", "bfloat16")), help="Default: the network's own.")
@click.option("--shard-size", type=click.IntRange(1), help="Training points in a shard. Default: 1,024 or more.")
@click.option("--verify", is_flag=True, help="Read all samples, and compare them with those that were stored.")
def build_store(folder: Path, dtype: str | None, shard_size: int | None, verify: bool, **task: Any) -> None:
    """Store the features of TASK's training set in FOLDER.

    The same command goes on where it was interrupted. Pass FOLDER as cache_dir of a method to use the store.
    """
    from dualview_plugin.cli.stores import build
    from dualview_plugin.cli.work import load
    from dualview_plugin.storage import Storage

    storage = Storage(folder, dtype=dtype, shard_size=shard_size, verify="full" if verify else "probe")
    made = build(load(**task), storage, show_progress=not task["quiet"])
    click.echo(f"{made.folder}: {made.n_computed} of {made.n_shards} shards computed now")


@store.command("show")
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_refusals
def show_stores(folder: Path, as_json: bool) -> None:
    """List the stores in FOLDER, with their finished shards and sizes."""
    from dualview_plugin.cli.stores import stores_in

    rows = [found.summary for found in stores_in(folder)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo("  ".join(f"{name}: {value}" for name, value in row.items()))


@store.command("verify")
@_FOLDER
@_refusals
def verify_stores(folder: Path) -> None:
    """Read every file in FOLDER's stores and compare its checksum; exit code 1 if one is damaged."""
    from dualview_plugin.cli.stores import damages, stores_in

    found = [damage for one in stores_in(folder) for damage in damages(one)]
    for damage in found:
        click.echo(damage)
    if found:
        raise click.ClickException("damaged files count as missing: build the store again")
    click.echo("all finished shards and kept fits are whole")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def methods(as_json: bool) -> None:
    """List the methods and when to use which."""
    rows = [{"name": name, "class": entry.class_name, "use": entry.use} for name, entry in METHODS.items()]
    _list(rows, as_json)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def metrics(as_json: bool) -> None:
    """List the metrics, the question that each asks, and what a task must have for it."""
    entries: dict[str, MetricEntry] = {**METRICS, **PYTHON_METRICS}
    rows = [
        {"name": name, "class": entry.class_name, "question": entry.question, "needs": entry.needs_text}
        for name, entry in entries.items()
    ]
    _list(rows, as_json)


@main.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: eval "$(dualview completion bash)"
    zsh:  eval "$(dualview completion zsh)"
    fish: dualview completion fish | source
    """  # noqa: D301
    found = get_completion_class(shell)
    assert found is not None  # one of the three
    click.echo(found(main, {}, "dualview", "_DUALVIEW_COMPLETE").source())


def _list(rows: list[dict[str, str]], as_json: bool) -> None:
    """Print rows as JSON or as paragraphs."""
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        name, class_name, *rest = row.values()
        click.echo(f"{click.style(name, bold=True)}  ({class_name})")
        for text in filter(None, rest):
            click.echo(f"    {text}")
