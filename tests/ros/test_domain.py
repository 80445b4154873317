"""Runs side by side get DDS domains of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.ros_domain import free_domain

HOLD = "from scripts.ros_domain import free_domain; print(free_domain(), flush=True); input()"


def test_no_two_runs_share_a_domain() -> None:
    def hold() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    runs = [hold() for _ in range(3)]
    domains = [run.stdout.readline().strip() for run in runs if run.stdout] + [free_domain() for _ in range(2)]
    for run in runs:
        run.communicate("\n", timeout=20)
    assert len(set(domains)) == 5 and all(1 <= int(domain) <= 100 for domain in domains)


def test_a_domain_is_free_again_when_its_run_has_ended() -> None:
    run = [sys.executable, "-c", "from scripts.ros_domain import free_domain; print(len({free_domain() for _ in range(20)}))"]
    for _ in range(6):  # 120 in all
        found = subprocess.run(run, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=20, check=True)
        assert found.stdout == "20\n"
