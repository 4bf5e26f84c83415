"""When a failed entry comes again."""

import pytest
from webhook_consumer.entry import Retry
from webhook_consumer.failures.retry import RetryPolicy

POLICY = RetryPolicy(max_retries=3, base_s=1.0, cap_s=10.0)


@pytest.mark.parametrize(("failures", "ceiling_s"), [(1, 1.0), (2, 2.0), (3, 4.0)])
def test_delays_are_spread_below_a_doubling_ceiling(failures, ceiling_s):
    delays = [POLICY.delay_s(Retry("x"), failures) for _ in range(2000)]
    assert 0 <= min(delays) < 0.05 * ceiling_s
    assert 0.95 * ceiling_s < max(delays) <= ceiling_s


def test_the_ceiling_has_a_cap_however_many_failures_there_were():
    delays = [POLICY.delay_s(Retry("x", patient=True), failures) for failures in range(5, 5000)]
    assert 9 < max(delays) <= 10


def test_all_tries_are_the_first_and_the_retries():
    assert POLICY.delay_s(Retry("x"), 3) is not None
    assert POLICY.delay_s(Retry("x"), 4) is None
    assert POLICY.delay_s(Retry("x", patient=True), 400) is not None


def test_who_says_when_is_not_visited_earlier_and_not_by_all_at_once():
    delays = [POLICY.delay_s(Retry("x", after_s=30.0), 1) for _ in range(1000)]
    assert min(delays) >= 30
    assert max(delays) <= 31
    assert max(delays) - min(delays) > 0.5
