"""What the README shows runs, and prints what the README says it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_code_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    said = re.search(r"\nprints\n\n((?:    .*\n)+)", README)
    assert blocks
    assert said is not None
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "torch.Size([500, 1297])" in printed
    # Training is not the same to the last bit on every processor: the scores are compared, not the digits.
    rows = [re.search(r"Identical Class +([\d.]+) +([\d.]+)", text) for text in (printed, said.group(1))]
    found, expected = ([float(value) for value in row.groups()] for row in rows if row is not None)
    assert found == pytest.approx(expected, abs=0.02)


def test_the_two_commands_are_the_makefiles() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command} " in README
        assert f"\n{command}: " in makefile
