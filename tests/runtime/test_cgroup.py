"""What control groups grant, of either version, wherever in their tree this process stands."""

from __future__ import annotations

import pytest

from edgewren.cgroup import cgroup_quota, memory_limit


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "nonsense\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu.max": "200000 100000\n", "cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
    ],
)
def test_cgroup_quota_of_either_version(tmp_path, files, expected):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cgroup_quota(tmp_path) == expected


def test_memory_limit_is_read_from_either_cgroup_version(tmp_path):
    assert memory_limit(tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert memory_limit(tmp_path) == 2**30


def tree(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "cores", "memory"),
    [
        (  # CPUQuota= and MemoryMax= of a service; the root of the tree has no limits
            "0::/system.slice/a.service\n",
            {
                "system.slice/a.service/cpu.max": "50000 100000\n",
                "system.slice/a.service/memory.max": "max\n",
                "system.slice/cpu.max": "200000 100000\n",
                "system.slice/memory.max": "4096\n",
                "other.slice/cpu.max": "10000 100000\n",
            },
            0.5,
            4096,
        ),
        (  # a group without the controllers
            "0::/user.slice/inner\n",
            {"user.slice/cpu.max": "300000 100000\n", "user.slice/memory.max": "8192\n"},
            3.0,
            8192,
        ),
        (  # version 1; the first group of that path is another controller's
            "4:memory:/m/x\n3:cpu,cpuacct:/c/x\n1:name=systemd:/s\n0::/u\n",
            {
                "cpu/c/x/cpu.cfs_quota_us": "-1\n",
                "cpu/c/x/cpu.cfs_period_us": "100000\n",
                "cpu/c/cpu.cfs_quota_us": "150000\n",
                "cpu/c/cpu.cfs_period_us": "100000\n",
                "memory/m/x/memory.limit_in_bytes": "1000\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            1.5,
            1000,
        ),
        ("0::/../other\n", {"cpu.max": "100000 100000\n", "memory.max": "7\n"}, 1.0, 7),  # outside of the namespace
        ("0::/docker/abc\n", {"cpu.max": "100000 100000\n", "memory.max": "7\n"}, 1.0, 7),  # mounted as the root
        ("", {"cpu.max": "0 0\n"}, None, None),
        ("\nnone\n", {"cpu.max": "100000 100000\n", "memory.max": "7\n"}, 1.0, 7),
    ],
    ids=["systemd", "above", "version 1", "outside", "not mounted", "nonsense", "no groups"],
)
def test_the_smallest_limit_on_the_way_up_counts(tmp_path, groups, files, cores, memory):
    tree(tmp_path / "root", files)
    (tmp_path / "groups").write_text(groups)
    assert cgroup_quota(tmp_path / "root", tmp_path / "groups") == cores
    assert memory_limit(tmp_path / "root", tmp_path / "groups") == memory
