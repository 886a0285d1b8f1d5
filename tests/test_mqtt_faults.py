"""1,000 numbered alarms through each fault: five minutes, so only where NETSPOT_LONG is set."""

from __future__ import annotations

import os

import pytest

from tests.bench.mqtt_faults import FAULTS, judged, run
from tests.broker import needs_mosquitto
from tests.netns import needs


@pytest.mark.skipif(not os.environ.get("NETSPOT_LONG"), reason="NETSPOT_LONG is not set")
@needs("mount")
@needs_mosquitto
@pytest.mark.parametrize("name", FAULTS)
def test_no_alarm_is_lost(name):
    result = run(name, 1000)
    assert (result.missing, result.disorder) == (0, 0), result


def test_the_judge_sees_what_is_missing_doubled_and_out_of_order():
    result = judged("x", [0, 1, 1, 3, 2, 2], 5, 0.0)
    assert (result.missing, result.doubles, result.disorder) == (1, 2, 1)
