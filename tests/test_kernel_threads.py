"""Sharing work out to threads."""

import pytest
import torch

from distill3d.runtime.kernel_threads import run_parallel, shares


@pytest.mark.parametrize(("total", "parts"), [(10, 3), (3, 10), (1, 1), (4096, 8), (7, 7)])
def test_shares_cover_everything_once_and_are_nearly_equal(total, parts):
    ranges = shares(total, parts)
    assert [i for begin, end in ranges for i in range(begin, end)] == list(range(total))
    sizes = [end - begin for begin, end in ranges]
    assert len(ranges) == min(total, parts) and min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


def test_nothing_is_one_empty_share():
    assert shares(0, 4) == [(0, 0)]


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_every_task_has_run_when_the_call_returns():
    done = [0] * 50
    run_parallel(lambda i, value: done.__setitem__(i, value), [(i, i * i) for i in range(50)])
    assert done == [i * i for i in range(50)]


@pytest.mark.usefixtures("threads")
def test_a_task_that_fails_is_heard():
    with pytest.raises(ZeroDivisionError):
        run_parallel(lambda x: 1 // x, [(1,), (0,), (2,)])
