"""Which worker leaves a connection to the others: who is ahead, but never all, and not for ever for one that hangs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfront_io.sharing import AHEAD, REST_SECONDS, Share, shares

MILLISECOND = 1_000_000


class Clock:
    """In nanoseconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000 * MILLISECOND

    def __call__(self) -> int:
        return self.now

    def rest_out(self) -> None:
        """All that rests now has rested."""
        self.now += int(REST_SECONDS * 1e9)


def workers(count: int) -> tuple[Clock, list[Share]]:
    clock = Clock()
    return clock, shares(count, clock)


def test_nobody_rests_who_is_alone() -> None:
    _, (one, two) = workers(2)
    assert one.rest() == 0  # nobody serves yet
    one.set(0)
    one.set(100)
    assert one.rest() == 0
    two.set(0)
    assert one.rest() == REST_SECONDS
    _, (one, two) = workers(2)
    one.set(100)
    two.set(0)
    two.gone()
    assert one.rest() == 0


@pytest.mark.parametrize(("others", "most"), [(0, 2), (1, 3), (3, 5), (4, 7), (400, 502)])
def test_who_is_ahead_rests(others: int, most: int) -> None:
    _, (one, two) = workers(2)
    two.set(others)
    one.set(most)
    assert (one.rest(), two.rest()) == (0, 0)
    one.set(most + 1)
    assert (one.rest(), two.rest()) == (REST_SECONDS, 0)


def test_a_rest_is_for_the_worker_that_has_fewest() -> None:
    _, (one, two, three) = workers(3)
    one.set(500)
    two.set(400)
    three.set(0)
    assert (one.rest(), two.rest(), three.rest()) == (REST_SECONDS, REST_SECONDS, 0)


def test_nobody_rests_for_one_that_rests() -> None:
    """Who takes while the other rests, and gets ahead of it by that, goes on: else they would wait for each other."""
    clock, (one, two) = workers(2)
    two.set(0)
    one.set(10)
    assert one.rest() == REST_SECONDS
    two.set(30)
    assert two.rest() == 0
    clock.rest_out()
    assert two.rest() == REST_SECONDS
    assert one.rest() == 0


def test_a_rest_holds_for_every_socket() -> None:
    clock, (one, two) = workers(2)
    two.set(0)
    one.set(10)
    assert one.rest() == REST_SECONDS
    clock.now += MILLISECOND
    assert one.rest() == pytest.approx(REST_SECONDS - 0.001)


def test_nobody_rests_again_for_a_worker_that_hangs() -> None:
    clock, (one, two, three) = workers(3)
    for share in (one, two, three):
        share.set(0)
    one.set(10)
    three.set(9)
    assert one.rest() == REST_SECONDS
    clock.rest_out()
    assert [one.rest() for _ in range(3)] == [0, 0, 0]
    assert three.rest() == REST_SECONDS  # it has found nothing out yet
    two.set(1)
    clock.rest_out()
    assert one.rest() == REST_SECONDS


def test_a_connection_that_has_ended_again_was_taken() -> None:
    clock, (one, two) = workers(2)
    two.set(0)
    one.set(10)
    assert one.rest() == REST_SECONDS
    two.set(1)
    two.set(0)
    clock.rest_out()
    assert one.rest() == REST_SECONDS


@given(st.data(), st.integers(2, 4))
def test_one_always_accepts(data: st.DataObject, count: int) -> None:
    """Whatever happens, they never all rest at a time; and who rests is ahead of one that does not."""
    clock, all_of_them = workers(count)
    open_now = [0] * count
    until = [0] * count
    for share in all_of_them:
        share.set(0)
    for _ in range(data.draw(st.integers(1, 60))):
        place = data.draw(st.integers(0, count - 1))
        share = all_of_them[place]
        what = data.draw(st.sampled_from(("connection", "connection", "connection", "end", "time")))
        if what == "time":
            clock.now += data.draw(st.integers(0, 3)) * MILLISECOND
        elif what == "end":
            open_now[place] = max(open_now[place] - data.draw(st.integers(1, 5)), 0)
            share.set(open_now[place])
        elif until[place] <= clock.now:
            if seconds := share.rest():
                until[place] = clock.now + int(seconds * 1e9)
                waiting = [n for n, end in zip(open_now, until, strict=True) if end <= clock.now]
                assert any(open_now[place] > other + AHEAD + other // 4 for other in waiting)
            else:
                open_now[place] += 1
                share.set(open_now[place])


@pytest.mark.parametrize("milliseconds_open", [5, 10_000])
def test_each_of_two_has_its_part(milliseconds_open: int) -> None:
    """The first wakes for each connection before the second does; and both have 30 % of a thousand, all the same."""
    clock, both = workers(2)
    ends: list[list[int]] = [[], []]
    taken = [0, 0]
    until = [0, 0]
    for share in both:
        share.set(0)
    for _ in range(1000):
        clock.now += MILLISECOND // 4
        for place, share in enumerate(both):
            ends[place] = [end for end in ends[place] if end > clock.now]
            share.set(len(ends[place]))
        for place, share in enumerate(both):
            if until[place] > clock.now:
                continue
            until[place] = clock.now + int(share.rest() * 1e9)
            if until[place] == clock.now:
                ends[place].append(clock.now + milliseconds_open * MILLISECOND)
                share.set(len(ends[place]))
                taken[place] += 1
                break
    assert sum(taken) == 1000
    assert min(taken) >= 300, taken
