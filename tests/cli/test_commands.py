"""The commands, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import dualview_plugin
from dualview_plugin import CacheWarning, DualView, IdenticalClass
from dualview_plugin.cli import main
from dualview_plugin.cli.catalogue import METHODS, METRICS, PYTHON_METRICS
from dualview_plugin.cli.task import ready_task
from dualview_plugin.metrics.registration import _METRICS
from tests.cli.own_task import task

OWN = "tests.cli.own_task:task"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_help_teaches_and_needs_no_torch() -> None:
    code = "import sys; from dualview_plugin.cli import main; main(['--help'], standalone_mode=False);"
    code += "print([name for name in ('torch', 'quantus', 'matplotlib') if name in sys.modules])"
    path = str(Path(dualview_plugin.__file__).parents[1])
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": path}).stdout
    assert shown.endswith("[]\n")
    for word in ("MODULE:FUNCTION", "Exit codes", "dualview demo", *main.commands):
        assert word in shown


@pytest.mark.parametrize("command", sorted(main.commands))
def test_each_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_evaluate_gives_the_scores_of_the_metric_itself() -> None:
    result = run("evaluate", OWN, "-m", "dualview", "--metric", "identical-class", "--quiet", "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    made = task()
    model, inputs = made["model"], made["x_test"]
    method = DualView(model, "1", made["train_dataset"], C=0.5, show_progress=False)
    said = model(torch.from_numpy(inputs)).argmax(1).numpy()
    expected = IdenticalClass()(model, inputs, said, explain_func=method, explain_func_kwargs={})
    assert row["values"] == expected
    assert row["mean"] == pytest.approx(np.mean(expected))
    assert row["method"], row["metric"] == ("dualview", "identical-class")


def test_evaluate_takes_all_metrics_that_the_task_allows_and_writes_them(tmp_path: Path) -> None:
    out = tmp_path / "new" / "scores.json"
    result = run("evaluate", OWN, "--quiet", "--n-test", "5", "-o", str(out))
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())
    metrics = {"identical-class", "label-poisoning", "top-cardinality", "sparsity"}
    assert {(row["method"], row["metric"]) for row in rows} == {(m, n) for m in ("dualview", "random") for n in metrics}
    assert {len(row["values"]) for row in rows if row["metric"] == "sparsity"} == {5}
    assert "95 % interval" in result.stdout


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_explains(method: str) -> None:
    result = run("explain", OWN, "-i", "2", "-i", "0", "-k", "2", "-m", method, "--quiet", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert list(dict.fromkeys(row["test_id"] for row in rows)) == ["photo-2", "photo-0"]
    assert {row["explained_class"] for row in rows} <= {"ape", "bee", "cow"}


@pytest.mark.parametrize(("name", "start"), [("f.png", b"\x89PNG"), ("f.html", b"<!doctype html>")])
def test_explain_writes_a_figure_or_a_page(tmp_path: Path, name: str, start: bytes) -> None:
    out = tmp_path / "new" / name
    result = run("explain", OWN, "-i", "1", "-k", "2", "--quiet", "-o", str(out))
    assert result.exit_code == 0, result.output
    assert out.read_bytes().startswith(start)


def test_report_has_the_scores_and_as_many_cards_as_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    result = run("report", OWN, "--points", "4", "-k", "2", "--quiet", "-o", str(out))
    assert result.exit_code == 0, result.output
    text = out.read_text()
    assert text.count("<article") == 4
    assert "photo-3" in text
    assert "label-poisoning" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "nonsense"], "TASK of dualview must be digits, mnist, cifar10 or MODULE:FUNCTION"),
        (["evaluate", "no_such_module:task"], "a module that Python finds from this folder"),
        (["evaluate", "tests.cli.own_task:nothing"], "must be a function of the module tests.cli.own_task"),
        (["evaluate", "tests.cli.own_task:without_data"], "none of ['final_fc_layer', 'train_dataset', 'x_test']"),
        (["evaluate", "tests.cli.own_task:misspelt"], "got ['class_name']"),
        (["evaluate", "tests.cli.own_task:no_mapping"], "a function that returns a mapping, got int"),
        (["evaluate", OWN, "--metric", "domain-mismatch"], "must be a task with marked_indices"),
        (["evaluate", OWN, "--modify", "marked"], "none for a task of your own"),
        (["evaluate", OWN, "--device", "cuda:99"], "--device of dualview must be a device of this machine"),
        (["evaluate", OWN, "-C", "-1"], "-C of dualview must be a finite real number"),
        (["evaluate", OWN, "-C", "much"], "-C of dualview must be a number or auto, got 'much'"),
        (["evaluate", "mnist"], "--data of dualview must be the folder"),
        (["evaluate", "cifar10", "--data", "/no/such/folder"], "--download fetches it"),
        (["explain", OWN, "-i", "99"], "below the number of test points, 13"),
        (["explain", OWN, "-i", "0", "-k", "2", "-o", "x.docx"], "a .html, .png, .pdf or .svg file"),
        (["evaluate", ":task"], "TASK of dualview must be digits, mnist, cifar10 or MODULE:FUNCTION, got ':task'"),
        (["evaluate", ".own_task:task"], "TASK of dualview must be digits, mnist, cifar10 or MODULE:FUNCTION"),
        (["evaluate", "tests.cli.own_task:misspelt", "--epochs", "2"], "--epochs of dualview must be absent"),
        (["evaluate", OWN, "--download"], "--download of dualview must be absent"),
        (["evaluate", OWN, "--device", "meta"], "--device of dualview must be a device of this machine"),
        (["evaluate", "tests.cli.own_task:with_argument"], "a function that takes no argument"),
        (
            ["evaluate", "tests.cli.own_task:no_network"],
            "model of tests.cli.own_task:no_network must be a torch.nn.Mod",
        ),
        (["evaluate", "tests.cli.own_task:text"], "x_test of tests.cli.own_task:text must be a tensor or an array"),
        (
            ["evaluate", "tests.cli.own_task:number"],
            "x_test of tests.cli.own_task:number must be one test",
        ),
        (
            ["evaluate", "tests.cli.own_task:nothing_to_explain"],
            "must be one test point at least, of shape (n_test",
        ),
        (
            ["evaluate", "tests.cli.own_task:words_for_labels"],
            "y_test of tests.cli.own_task:words_for_labels must",
        ),
        (
            ["explain", "tests.cli.own_task:half_labels", "-i", "0"],
            "y_test of tests.cli.own_task:half_labels must",
        ),
        (["report", "tests.cli.own_task:few_labels"], "must be one for each of 13 test points, got 2"),
        (["explain", "tests.cli.own_task:few_names", "-i", "0"], "must be one for each of 13 test points, got 1"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", OWN, "-m", "random", "--metric", "identical-class", "-o"],
        ["explain", OWN, "-i", "0", "-k", "2", "-o"],
        ["report", OWN, "-o"],
    ],
)
def test_a_file_that_cannot_be_written_is_named(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(*arguments, f"{tmp_path}/file/page.html", "--quiet")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error:")
    assert f"{tmp_path}/file" in result.stderr


def test_an_error_inside_the_users_module_is_shown_as_it_is() -> None:
    result = run("evaluate", "tests.cli.own_task:needs_another_module")
    assert isinstance(result.exception, ModuleNotFoundError)


def test_the_choice_of_c_can_be_left_to_the_method() -> None:
    result = run("explain", OWN, "-i", "0", "-C", "auto", "--quiet")
    assert result.exit_code == 0, result.stderr


def test_wrong_usage_has_an_exit_code_of_its_own() -> None:
    assert run("explain", OWN).exit_code == 2
    assert run("evaluate", OWN, "--metric", "nonsense").exit_code == 2


def test_methods_and_metrics_are_listed_whole() -> None:
    methods, metrics = (json.loads(run(name, "--json").stdout) for name in ("methods", "metrics"))
    assert [row["name"] for row in methods] == list(METHODS)
    assert {row["class"] for row in metrics} == {metric.__name__ for metric in _METRICS}
    assert {row["name"] for row in metrics} == {*METRICS, *PYTHON_METRICS}
    for row in (*methods, *metrics):
        assert hasattr(dualview_plugin, row["class"])
        assert row["name"] in run("methods").stdout + run("metrics").stdout


def test_a_store_is_built_resumed_shown_and_verified(tmp_path: Path) -> None:
    build = ("store", "build", str(tmp_path), OWN, "--shard-size", "10", "--quiet")
    result = run(*build)
    assert result.exit_code == 0, result.output
    assert "3 of 3 shards computed now" in result.stdout
    assert "0 of 3 shards computed now" in run(*build).stdout
    (row,) = json.loads(run("store", "show", str(tmp_path), "--json").stdout)
    assert (row["kind"], row["training_points"], row["shards"]) == ("features", 29, "3 of 3")
    assert run("store", "verify", str(tmp_path)).exit_code == 0
    column = sorted(tmp_path.glob("*/shard-000001.features.npy"))[0]
    content = bytearray(column.read_bytes())
    content[-1] ^= 1
    column.write_bytes(content)
    result = run("store", "verify", str(tmp_path))
    assert result.exit_code == 1
    assert "shard-000001" in result.output
    with pytest.warns(CacheWarning, match="is computed again"):
        assert "1 of 3 shards computed now" in run(*build).stdout
    assert run("store", "verify", str(tmp_path)).exit_code == 0


def test_a_damaged_fit_is_found_too(tmp_path: Path) -> None:
    made = task()
    DualView(made["model"], "1", made["train_dataset"], C=0.5, cache_dir=tmp_path, show_progress=False).fit()
    assert run("store", "verify", str(tmp_path)).exit_code == 0
    (fit,) = tmp_path.glob("*/*.zip")
    content = bytearray(fit.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), bytes(content[:-40])):
        fit.write_bytes(damaged)
        result = run("store", "verify", str(tmp_path))
        assert result.exit_code == 1
        assert fit.name in result.output


def strict(text: str) -> Any:
    """JSON that has no NaN."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_json_has_every_digit() -> None:
    result = run("explain", OWN, "-i", "0", "-C", "1e-12", "--json", "--quiet")
    made = task()
    method = DualView(made["model"], "1", made["train_dataset"], C=1e-12, show_progress=False)
    values = method.attribute(made["x_test"][:1])[0]
    for row in strict(result.stdout):
        assert row["attribution"] == float(values[row["train_id"]]) != 0


def test_json_has_null_for_scores_that_are_none(tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    options = ("-m", "feature-similarity", "--metric", "sparsity", "--json", "-o", str(out), "--quiet")
    result = run("evaluate", "tests.cli.own_task:dark", *options)
    assert result.exit_code == 0, result.output
    for text in (result.stdout, out.read_text()):
        assert None in strict(text)[0]["values"]


def test_ids_of_every_kind_are_text_or_numbers() -> None:
    rows = strict(run("explain", "tests.cli.own_task:odd_names", "-i", "1", "--json", "--quiet").stdout)
    assert {row["test_id"] for row in rows} == {1}
    assert all(row["train_id"].startswith("file-\udcff") for row in rows)
    assert "file-\\udcff" in run("explain", "tests.cli.own_task:odd_names", "-i", "1", "--quiet").stdout


def test_dollar_signs_in_names_are_no_formulas(tmp_path: Path) -> None:
    result = run("explain", "tests.cli.own_task:dollars", "-i", "0", "-k", "2", "-o", f"{tmp_path}/a.png", "--quiet")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", [("evaluate",), ("explain", "-i", "0", "-o", "a.png", "-k", "2"), ("report",)])
def test_inputs_in_bfloat16_and_with_a_gradient(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(command[0], "tests.cli.own_task:short_floats", *command[1:], "--quiet")
    assert result.exit_code == 0, result.output


def test_the_module_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The missing one's name begins the user's own."""
    (tmp_path / "absent_task.py").write_text("import absent_ta")
    monkeypatch.syspath_prepend(tmp_path)
    result = run("evaluate", "absent_task:task")
    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == "absent_ta"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "digits", "--metric", "label-poisoning"], "with poisoned_indices, as with --modify poisoned"),
        (["evaluate", "digits", "--modify", "marked", "--metric", "identical-subclass"], "as with --modify grouped"),
        (["evaluate", "digits", "-C", "large"], "-C of dualview must be a number or auto, got 'large'"),
        (["evaluate", "digits", "-C", "0"], "-C of dualview must be"),
        (["explain", "digits", "-i", "200"], "--index of dualview must be below the number of test points, 200"),
        (["explain", "digits", "-i", "0", "-o", "two.xyz"], "--out of dualview must be a .html, .png, .pdf or .svg"),
        (["explain", OWN, "-i", "0", "-o", "two"], "--out of dualview must be a .html, .png, .pdf or .svg file"),
    ],
)
def test_what_cannot_be_is_refused_before_a_network_is_trained(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: object, **__: object) -> None:
        raise AssertionError("a network was trained")

    monkeypatch.setattr("dualview_plugin.cli.work.ready_task", trained)
    result = run(*arguments)
    assert result.exit_code == 1, result.exception
    assert message in result.stderr


def test_a_task_may_be_an_object(tmp_path: Path) -> None:
    result = run("explain", "tests.cli.own_task:as_task", "-i", "0", "-k", "2", "--json")
    assert result.exit_code == 0, result.output


@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.RandomNetworkWarning")
def test_a_network_that_draws_numbers_has_no_store(tmp_path: Path) -> None:
    result = run("store", "build", str(tmp_path), "tests.cli.own_task:random_network", "--quiet")
    assert result.exit_code == 1
    assert "must be a network and data that give the same values at each reading" in result.stderr


def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    assert run("store", "build", str(tmp_path), OWN, "--quiet").exit_code == 0
    (manifest,) = tmp_path.glob("*/manifest.json")
    manifest.write_text("{")
    result = run("store", "show", str(tmp_path))
    assert result.exit_code == 1
    assert "a folder whose stores have readable manifests and records" in result.stderr


def test_a_folder_without_stores_is_refused(tmp_path: Path) -> None:
    result = run("store", "show", str(tmp_path))
    assert result.exit_code == 1
    assert "FOLDER of dualview store must be a folder with stores" in result.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    assert "_DUALVIEW_COMPLETE" in run("completion", shell).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modification", "field"),
    [("poisoned", "poisoned_indices"), ("grouped", "train_subclasses"), ("marked", "marked_indices")],
)
def test_modified_tasks_know_the_truth(modification: str, field: str) -> None:
    made = ready_task("digits", modification, epochs=4 if modification == "marked" else 1, show_progress=False)
    assert len(getattr(made, field)) > 0
    assert len(made.x_test) == len(made.y_test)
    if modification == "marked":
        with torch.no_grad():
            assert made.target.tolist() == made.model(made.x_test).argmax(1).tolist()


@pytest.mark.parametrize(("name", "shape"), [("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))])
def test_torchvisions_data_sets_become_images(
    name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The stand-in has what the reading relies on: data of MNIST are a tensor, those of CIFAR-10 an array."""
    rng = np.random.default_rng(0)
    pixels: Any = rng.integers(0, 256, (30, *shape[1:], 3) if name == "cifar10" else (30, *shape[1:]), dtype=np.uint8)
    made = SimpleNamespace(
        data=pixels if name == "cifar10" else torch.from_numpy(pixels),
        targets=(np.arange(30) % 10).tolist(),
        classes=[str(i) for i in range(10)],
    )
    monkeypatch.setattr(f"torchvision.datasets.{name.upper()}", lambda root, train, download: made)
    found = ready_task(name, epochs=1, data=tmp_path, show_progress=False)
    assert found.x_test.shape == (30, *shape)
    expected = pixels[4].transpose(2, 0, 1) if name == "cifar10" else pixels[4][None]
    np.testing.assert_allclose(found.x_test[4].numpy(), expected / 255, rtol=1e-6)


@pytest.mark.slow
def test_demo_writes_a_figure_and_a_report(tmp_path: Path) -> None:
    result = run("demo", "-o", str(tmp_path), "--quiet")
    assert result.exit_code == 0, result.output
    assert "identical-class" in result.stdout
    assert (tmp_path / "training_points.png").stat().st_size > 10_000
    assert (tmp_path / "report.html").read_text().count("<article") == 20
