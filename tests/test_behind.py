"""Behind: all calls, in their order, and what they raise."""

import threading

import pytest

from codec.behind import Behind


def test_calls_are_made_in_their_order_by_one_other_thread() -> None:
    made, threads = [], set()

    def call(n: int) -> None:
        made.append(n)
        threads.add(threading.current_thread())

    with Behind(call) as later:
        for n in range(50):
            later(n)
    assert made == list(range(50))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_few_calls_wait() -> None:
    gate, asked = threading.Event(), []

    def ask(later: Behind) -> None:
        for n in range(6):
            later(n)
            asked.append(n)

    with Behind(lambda n: gate.wait()) as later:
        asking = threading.Thread(target=ask, args=(later,))
        asking.start()
        asking.join(0.2)
        assert asking.is_alive()
        assert len(asked) < 4
        gate.set()
        asking.join()


@pytest.mark.parametrize("more", [0, 10])
def test_what_a_call_raises_ends_it(more: int) -> None:
    made = []

    def call(n: int) -> None:
        made.append(n)
        if n == 1:
            raise ValueError("one")

    with pytest.raises(ValueError, match="one"), Behind(call) as later:
        for n in range(2 + more):
            later(n)
    assert made == [0, 1]


def test_an_error_of_the_block_is_the_one_that_is_raised() -> None:
    made = []
    with pytest.raises(KeyError), Behind(made.append) as later:
        later(1)
        raise KeyError
    assert made in ([], [1])
