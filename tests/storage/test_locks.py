"""Where no lock can be made, everybody has the claim: work may be done twice, and none is left undone."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dualview_plugin.storage import locks
from dualview_plugin.storage.locks import Claim


def test_one_of_two_has_it_until_it_is_given_back(tmp_path: Path) -> None:
    claim = Claim.take(tmp_path / "lock")
    assert claim is not None
    assert Claim.take(tmp_path / "lock") is None
    claim.release()
    claim.release()  # twice is once
    assert not (tmp_path / "lock").exists()
    assert Claim.take(tmp_path / "lock") is not None


def test_a_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    for _ in range(2):
        claim = Claim.take(tmp_path / "lock")
        assert claim is not None
        claim.release()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    assert Claim.take(tmp_path / "no folder" / "lock") is not None


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refused)
    for _ in range(2):
        claim = Claim.take(tmp_path / "lock")
        assert claim is not None
        claim.release()
