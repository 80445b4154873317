"""The short form of the soak; the long one is `make soak`."""

from __future__ import annotations

import pytest

from tests.ros.harness import Client
from tests.ros.soak import Result, soak


@pytest.mark.timeout(900)
def test_cameras_that_come_and_go(ros: Client) -> None:
    result = soak(ros, 6.0, pause_s=1.0)
    assert result.events >= 2 and result.scenes > 10
    assert not result.failures(), result  # the very limits of the long form


def test_verdicts_can_fail() -> None:
    rss_mb = [100.0 + second / 10 for second in range(600)]
    assert Result(600.0, recoveries_s=[1.0], rss_mb=rss_mb, exit_code=0).failures() == ["memory grew by 42.0 MB"]
    assert len(Result(600.0, recoveries_s=[5.0], rss_mb=rss_mb, exit_code=1, crashed=True).failures()) == 4
    assert Result(600.0, recoveries_s=[1.0], rss_mb=[100.0] * 600, exit_code=0).failures() == []
