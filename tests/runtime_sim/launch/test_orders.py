"""Orders in which queues take turns."""

from runtime_sim.launch.orders import alternating, core_ahead, run_ahead, shuffled

ALL = [0, 1, 2, 3]  # the queues of two cores


def turns(choose, count=4):
    return [choose(ALL) for _ in range(count)]


def test_each_queue_in_turn():
    choose = alternating()
    assert turns(choose, 5) == [0, 1, 2, 3, 0]
    assert choose([0, 3]) == 3


def test_one_engine_or_one_core_goes_ahead():
    assert [run_ahead("dma")(ready) for ready in (ALL, [0, 2])] == [1, 0]
    assert [core_ahead(1)(ready) for ready in (ALL, [0, 1])] == [2, 0]


def test_a_seed_is_an_order():
    assert turns(shuffled(5), 100) == turns(shuffled(5), 100) != turns(shuffled(6), 100)
    assert set(turns(shuffled(5), 200)) == set(ALL)
    assert shuffled(5)([2]) == 2
