"""The launcher of Dynamo's workers: what it hands to which program, and what it does without torchvision."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstrata.node import dynamo_worker


def test_options_become_flags_by_their_type() -> None:
    options = {"block-size": 16, "is-prefill": False, "trust": True, "names": ["a", "b"], "x": {"y": 1}, "none": None}
    assert dynamo_worker.flags(options) == [
        *("--block-size", "16", "--no-is-prefill", "--trust", "--names", "a", "b", "--x", '{"y": 1}')
    ]


def test_an_engine_reads_its_file_itself(tmp_path: Path) -> None:
    assert dynamo_worker.arguments("vllm", tmp_path / "0.yaml") == ["--config", str(tmp_path / "0.yaml")]


def test_a_mocker_gets_its_file_as_flags(tmp_path: Path) -> None:
    path = tmp_path / "0.yaml"
    path.write_text("model-path: /srv/m\nblock-size: 16\n")
    assert dynamo_worker.arguments("mocker", path) == ["--model-path", "/srv/m", "--block-size", "16"]


def test_a_mockers_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="holds list; allowed: a mapping"):
        dynamo_worker.arguments("mocker", path)


def test_without_torchvision_the_import_works_and_a_call_says_why_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, dynamo_worker._IMAGES, None)
    assert dynamo_worker.spare_torchvision()
    with pytest.raises(RuntimeError, match="torchvision is not installed"):
        sys.modules[dynamo_worker._IMAGES].smart_resize(1, 2)


def test_with_torchvision_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.delitem(sys.modules, dynamo_worker._IMAGES, raising=False)
    assert not dynamo_worker.spare_torchvision()
    assert dynamo_worker._IMAGES not in sys.modules


@pytest.mark.parametrize("args", [[], ["vllm"], ["sglang", "x.yaml"]])
def test_what_it_does_not_know_is_refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert dynamo_worker.main(args) == 2
    assert "usage: dynamo_worker {vllm|mocker} CONFIG.yaml" in capsys.readouterr().err


def test_the_program_is_run_as_if_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(sys, "argv", ["kept"])
    monkeypatch.setattr(
        runpy, "run_module", lambda name, **kwargs: seen.update(name=name, argv=list(sys.argv), **kwargs)
    )
    path = tmp_path / "0.yaml"
    path.write_text("block-size: 16\n")
    assert dynamo_worker.main(["mocker", str(path)]) == 0
    assert seen["name"] == "dynamo.mocker"
    assert seen["argv"][1:] == ["--block-size", "16"]
    assert seen["run_name"] == "__main__"
