"""How many cores count: what the scheduler and the container's quota leave of the machine."""

import math
import os
from pathlib import Path

import pytest

from app.core.cores import affinity_count, core_count, quota_cores

pytestmark = pytest.mark.core


def groups(tmp_path: Path, own: str) -> tuple[Path, Path]:
    """Return the folder of the control groups, empty, and the file that names the process's own."""
    mount, own_file = tmp_path / "cgroup", tmp_path / "own"
    mount.mkdir(parents=True, exist_ok=True)
    own_file.write_text(own)
    return mount, own_file


def version_2(tmp_path: Path, content: str) -> float:
    mount, own = groups(tmp_path, "0::/\n")
    (mount / "cpu.max").write_text(content)
    return quota_cores(mount, own)


def version_1(tmp_path: Path, quota: str, *, name: str = "cpu,cpuacct", path: str = "/") -> float:
    mount, own = groups(tmp_path, f"4:memory:/x\n3:{name}:{path}\n0::/\n")
    folder = mount / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    return quota_cores(mount, own)


def test_a_quota_of_version_2_is_read(tmp_path: Path) -> None:
    assert version_2(tmp_path, "150000 100000\n") == 1.5
    assert version_2(tmp_path, "20000 50000") == 0.4


@pytest.mark.parametrize("content", ["max 100000", "", "nonsense", "100000 0", "0 100000"])
def test_no_quota_of_version_2_is_no_limit(tmp_path: Path, content: str) -> None:
    assert version_2(tmp_path, content) == math.inf


def test_a_quota_of_version_1_is_read_under_either_name(tmp_path: Path) -> None:
    assert version_1(tmp_path / "a", "250000\n") == 2.5
    assert version_1(tmp_path / "b", "50000\n", name="cpu") == 0.5
    assert version_1(tmp_path / "c", "-1\n") == math.inf


def test_a_container_that_sees_the_host_s_path_finds_its_own_root(tmp_path: Path) -> None:
    assert version_1(tmp_path, "200000", path="/docker/4f1c") == 2.0


def test_the_least_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    mount, own = groups(tmp_path, "0::/system.slice/ml-api.service\n")
    (mount / "system.slice/ml-api.service").mkdir(parents=True)
    (mount / "system.slice/ml-api.service/cpu.max").write_text("400000 100000")
    (mount / "system.slice/cpu.max").write_text("300000 100000")
    (mount / "cpu.max").write_text("max 100000")
    assert quota_cores(mount, own) == 3.0


def test_a_part_of_a_core_counts_as_one(tmp_path: Path) -> None:
    mount, own = groups(tmp_path, "0::/\n")
    (mount / "cpu.max").write_text("20000 100000")
    assert core_count(mount, own) == 1
    (mount / "cpu.max").write_text("120000 100000")
    assert core_count(mount, own) == min(2, affinity_count())


def test_without_a_quota_affinity_counts(tmp_path: Path) -> None:
    assert core_count(tmp_path / "absent", tmp_path / "absent") == affinity_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_is_what_the_scheduler_says() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert core_count() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert affinity_count() == 1
