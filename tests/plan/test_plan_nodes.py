"""Nodes from files and by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kvstrata.plan.figures import Basis
from kvstrata.plan.gpus import GPUS, gpu, seen_as
from kvstrata.plan.nodes import named_node, read_node, suggested_store_gib
from kvstrata.plan.reading import BadInputError

NODE: dict[str, Any] = {
    "gpu": "H100-SXM",
    "gpus": 4,
    "dram_gib": 512,
    "cpu_cores": 32,
    "nic_gbit": 100,
    "drives": [{"name": "d", "count": 2, "read_gbps": 7, "write_gbps": 5, "size_gb": 3840, "dwpd": 1}],
}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(**changes: Any) -> Path:
        path = tmp_path / "node.yml"
        path.write_text(yaml.safe_dump({key: value for key, value in {**NODE, **changes}.items() if value is not None}))
        return path

    return write


def test_a_file_describes_a_node(written: Any) -> None:
    node = read_node(written())
    assert (node.gpu.name, node.gpus, node.dram_gib.value) == ("H100-SXM", 4, 512)
    assert [drive.name for drive in node.drives] == ["d0", "d1"]
    assert node.drives[0].tbw
    assert node.drives[0].tbw.value == pytest.approx(3.84 * 365 * 5)
    assert node.gpu.hbm_gbps.basis is Basis.DATA_SHEET
    assert node.dram_gib.basis is Basis.GIVEN
    assert node.dram_gbps.basis is Basis.ASSUMED


def test_a_file_changes_what_it_names_of_a_known_node(written: Any) -> None:
    node = read_node(written(like="8xH200", gpu={"like": "H200", "hbm_gib": 100}, drives=None, gpus=None))
    assert (node.gpus, node.gpu.hbm_gib.value, node.gpu.hbm_gib.basis) == (8, 100, Basis.GIVEN)
    assert node.gpu.hbm_gbps.basis is Basis.DATA_SHEET
    assert len(node.drives) == 8


@pytest.mark.parametrize("kind", GPUS)
def test_every_gpu_makes_a_node(kind: str) -> None:
    node = named_node(f"4x{kind}")
    assert node.gpus == 4
    assert node.gpu.peak("fp8").value >= node.gpu.peak("bf16").value > 300


def test_a_gpu_without_fp8_computes_it_as_bf16() -> None:
    assert gpu("A100-80G").peak("fp8").value == 312


@pytest.mark.parametrize(
    ("driver_says", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-80GB", "A100-80G"),
        ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H100 PCIe", None),
    ],
)
def test_the_drivers_name_of_a_gpu_is_recognized(driver_says: str, known: str | None) -> None:
    found = seen_as(driver_says)
    assert (found.name if found else None) == known


def test_a_store_is_less_than_half_of_its_drive() -> None:
    # inventories/example has 1700 for a drive of 3.84 TB.
    assert 1650 < suggested_store_gib(3840) <= 1700


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "H101"}, "node.gpu is 'H101'; allowed: .*H100-SXM"),
        ({"gpu": None}, "node.gpu is None; allowed"),
        ({"gpu": {"name": "x"}}, "node.gpu.tflops is None; allowed: a mapping; it is required"),
        ({"gpus": 0}, "node.gpus is 0; allowed: a whole number, 1 to 64"),
        ({"gpus": True}, "node.gpus is True; allowed: a whole number"),
        ({"dram_gib": "much"}, "node.dram_gib is 'much'; allowed: a number"),
        ({"dram_gib": None}, "node.dram_gib is None; allowed: a number; it is required"),
        ({"cores": 3}, "node.cores is 3; allowed: only the fields name, like, gpu"),
        ({"like": "9 GPUs"}, "node is '9 GPUs'; allowed: a file, or 1 to 16 GPUs as 8xH100-SXM"),
        ({"drives": {}}, "node.drives is {}; allowed: a list of mappings"),
        ({"drives": [{"kind": "gen9"}]}, "kind of a drive is 'gen9'; allowed: one of gen4, gen5"),
        ({"drives": [{"kind": "gen4", "read_gbps": 0}]}, r"node.drives\[0\].read_gbps is 0; allowed: a number of at"),
        ({"drives": [{"kind": "gen4"}, {"kind": "gen5"}]}, "node.drives is 'd'; allowed: each name once"),
        ({"drives": [{"size_gb": 1}]}, r"node.drives\[0\].read_gbps is None; allowed: a number; it is required"),
    ],
)
def test_what_is_wrong_with_a_node_is_named(written: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        read_node(written(**changes))


def test_a_file_that_is_not_there_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"node is .*; allowed: a file that can be read"):
        read_node(tmp_path / "none.yml")
    path = tmp_path / "node.yml"
    path.write_text("a: [")
    with pytest.raises(BadInputError, match="allowed: a YAML or JSON file"):
        read_node(path)
