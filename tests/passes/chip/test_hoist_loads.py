"""Loads are issued early, as far as memory allows, and nothing that they read or write is disturbed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.core import Op, Value
from dialects.chip import Instruction
from passes.chip.hoist_loads import Room, split_commands
from passes.chip.lives import live_bytes, lives
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import run_function
from tests.helpers import check_pass
from tests.passes.chip.random_programs import Move, moves, program_of
from tests.passes.programs import SPEC

VIEW = "#chip.view<dtype = f32>"
LOCAL, DDR = "!chip.local<bytes = 64>", "!chip.global<bytes = 4096>"


def region(name: str, space: str) -> str:
    place = "" if space == "scratch" else ", index = 0 : i64"
    return f'%{name} = "chip.global"() <{{space = "{space}"{place}}}> : () -> {DDR}\n'


def local(name: str, type_: str = LOCAL) -> str:
    return f'%{name} = "chip.local"() : () -> {type_}\n'


def dma(target: str, source: str, types: str) -> str:
    return f"""
      "chip.dma"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {VIEW},
          opd0 = {VIEW}}}> : ({types}) -> ()
    """


def load(target: str, source: str) -> str:
    return dma(target, source, f"{LOCAL}, {DDR}")


def store(target: str, source: str) -> str:
    return dma(target, source, f"{DDR}, {LOCAL}")


def copy(target: str, source: str) -> str:
    return f"""
      "chip.ar"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {VIEW},
          opd0 = {VIEW}, round = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({LOCAL}, {LOCAL}) -> ()
    """


HEAD = region("x", "input") + region("t", "scratch") + "".join(map(local, "abcd"))
LATE = load("%c", "%x") + load("%e", "%x") + copy("%d", "%c") + copy("%f", "%e")
WORK = copy("%b", "%a") + copy("%a", "%b")


def test_a_load_moves_in_front_of_work_that_does_not_need_it():
    check_pass(
        "hoist-loads",
        before=HEAD + load("%a", "%x") + WORK + load("%c", "%x") + copy("%d", "%c"),
        after=HEAD + load("%a", "%x") + load("%c", "%x") + WORK + copy("%d", "%c"),
    )


@pytest.mark.parametrize(
    "late",
    [
        store("%t", "%b") + load("%c", "%t"),  # of what the program has just stored
        load("%a", "%x"),  # into a buffer that is in use
    ],
)
def test_a_load_stays_where_moving_it_would_change_something(late):
    text = HEAD + load("%a", "%x") + WORK + late + copy("%d", "%c")
    check_pass("hoist-loads", before=text, after=text)


def test_a_load_that_stays_is_not_overtaken():
    """There is room for two buffers: the load of c stays where it is, that of e goes up to it."""
    head = HEAD + local("e") + local("f") + local("g") + load("%g", "%x")
    text = head + load("%a", "%x") + copy("%a", "%g") + LATE
    check_pass(f"hoist-loads{{fill={128 / SPEC.lane_bytes}}}", before=text, after=text)


def test_a_load_stays_where_memory_is_full():
    text = HEAD + load("%a", "%x") + WORK + load("%c", "%x") + copy("%d", "%c")
    check_pass("hoist-loads{fill=0.0}", before=text, after=text)


REGIONS = region("x", "input") + region("t", "scratch") + region("y", "output")
STORING = REGIONS + "".join(map(local, "abcdefg"))
LOADS = [load(target, "%x") for target in ("%a", "%c", "%e")]
COPIES = [copy("%b", "%a"), copy("%d", "%c"), copy("%f", "%e")]


def filled(buffers: int, beside: int = 0) -> str:
    """The pass, with room for so many buffers of 64 bytes, and for so many bytes."""
    return f"hoist-loads{{fill={(64 * buffers + beside) / SPEC.lane_bytes}}}"


SLOW = 300 * copy("%c", "%c")  # takes longer than a load and a store


def test_a_load_lets_a_store_pass_that_is_ready():
    """The result of the first load is there when the second is over, so its store goes before the third."""
    first = COPIES[0] + store("%y", "%b")
    check_pass(
        "hoist-loads",
        before=STORING + LOADS[0] + first + LOADS[1] + SLOW + COPIES[1] + LOADS[2] + COPIES[2],
        after=STORING + LOADS[0] + LOADS[1] + first + LOADS[2] + SLOW + COPIES[1] + COPIES[2],
    )


STEPS = {
    **dict(zip("aceBDF", LOADS + COPIES, strict=True)),
    "y": store("%y", "%b"), "w": store("%s", "%b"), "t": store("%t", "%d"), "r": load("%e", "%t"),
    "-": 200 * copy("%c", "%c"), "u": load("%b", "%x"), "g": load("%g", "%x"), "G": copy("%g", "%g"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("buffers", "before", "after"),
    [
        (4, "aBycDeF", "aceByDF"),  # what is stored is the fourth at the third load
        (4, "aByc-DeF", "aceBy-DF"),  # a store may be over in time, but not the load behind it
        (3, "aBycDeF", "acByDeF"),  # which so finds no room before the store is over
        (2, "aBycDeF", "aBycDeF"),
        (7, "aBucDeF", "acBueDF"),  # what is needed sooner than the third load is no store
        (7, "aBwcDeF", "acBweDF"),  # other cores may wait for what is stored for them
        (4, "aBycDtrFgG", "acByDtrFgG"),  # a load that has to be behind the store does not make it wait
    ],
)
def test_a_store_waits_for_a_load_that_compute_would_wait_for_where_it_has_room(buffers, before, after):
    head = STORING + region("s", "shared")
    first, second = (head + "".join(map(STEPS.__getitem__, steps)) for steps in (before, after))
    check_pass(filled(buffers), before=first, after=second)


def test_a_load_does_not_wait_behind_a_store_that_is_not_ready():
    slow = 100 * WORK  # the loads are over before
    rest = store("%y", "%b") + COPIES[1] + COPIES[2]
    check_pass(
        "hoist-loads",
        before=STORING + LOADS[0] + slow + store("%y", "%b") + LOADS[1] + COPIES[1] + LOADS[2] + COPIES[2],
        after=STORING + "".join(LOADS) + slow + rest,
    )


def test_a_load_starts_later_by_what_the_stores_before_it_take():
    """The first store is still on its way when the next result is there, which so goes before the load."""
    first, second = COPIES[0] + store("%y", "%b"), COPIES[1] + store("%t", "%d")
    check_pass(
        "hoist-loads",
        before=STORING + LOADS[0] + first + LOADS[1] + second + 2 * SLOW + LOADS[2] + COPIES[2],
        after=STORING + LOADS[0] + LOADS[1] + first + second + LOADS[2] + 2 * SLOW + COPIES[2],
    )


def test_a_load_takes_the_room_of_the_next():
    """Two buffers are at work: a third may be loaded ahead, and a fourth when the work is done."""
    rest = COPIES[1] + COPIES[2]
    check_pass(
        filled(4),
        before=STORING + LOADS[0] + WORK + LOADS[1] + LOADS[2] + rest,
        after=STORING + LOADS[0] + LOADS[1] + LOADS[2] + WORK + rest,
    )
    check_pass(
        filled(3),
        before=STORING + LOADS[0] + WORK + LOADS[1] + LOADS[2] + rest,
        after=STORING + LOADS[0] + LOADS[1] + WORK + LOADS[2] + rest,
    )


def test_a_small_load_does_not_overtake_a_large_one():
    """Beside the work there is room for the small one only, later for both."""
    large = "!chip.local<bytes = 192>"
    head = STORING + local("h", large) + load("%g", "%x") + LOADS[0] + WORK
    both, later = dma("%h", "%x", f"{large}, {DDR}") + LOADS[1], copy("%g", "%g")
    check_pass(filled(5), before=head + later + both + COPIES[1], after=head + both + later + COPIES[1])


STORED = COPIES[0] + store("%t", "%b") + load("%c", "%t")


def test_a_load_passes_one_of_what_is_not_yet_stored():
    work = 100 * WORK
    check_pass(
        "hoist-loads",
        before=STORING + LOADS[0] + work + STORED + COPIES[1] + LOADS[2] + COPIES[2],
        after=STORING + LOADS[0] + LOADS[2] + work + STORED + COPIES[1] + COPIES[2],
    )


def test_a_load_passes_none_that_it_would_hold_up():
    check_pass(
        "hoist-loads",
        before=STORING + LOADS[0] + STORED + COPIES[1] + LOADS[2] + COPIES[2],
        after=STORING + LOADS[0] + STORED + LOADS[2] + COPIES[1] + COPIES[2],
    )


@pytest.mark.parametrize(("buffers", "passes"), [(6, True), (5, False)])
def test_a_load_passes_none_that_it_would_take_the_room_of(buffers, passes):
    """That one takes three buffers beside two that are at work. A bank stays free, which others may take."""
    large = "!chip.local<bytes = 192>"
    head = STORING + local("h", large) + local("i") + LOADS[0]
    early, other_work = 100 * WORK + COPIES[0] + store("%t", "%b"), copy("%g", "%i") + copy("%i", "%g")
    late = dma("%h", "%t", f"{large}, {DDR}")
    use = copy("%d", "%h").replace(f"({LOCAL}, {LOCAL})", f"({LOCAL}, {large})")
    before = head + early + other_work + late + use + LOADS[2] + COPIES[2]
    moved = LOADS[2] + early + late if passes else early + late + LOADS[2]
    after = head + moved + other_work + use + COPIES[2]
    check_pass(filled(buffers, SPEC.bank_bytes), before=before, after=after)


def test_loads_of_one_buffer_do_not_pass_each_other():
    work, parts = 100 * WORK, load("%c", "%t") + load("%c", "%x")
    text = STORING + LOADS[0] + work + COPIES[0] + store("%t", "%b") + parts + COPIES[1]
    check_pass("hoist-loads", before=text, after=text)


def test_a_load_does_not_wait_behind_another_that_cannot_move():
    work = WORK + load("%b", "%x")  # into a buffer that is in use
    check_pass(
        "hoist-loads",
        before=STORING + LOADS[0] + work + LOADS[1] + COPIES[1],
        after=STORING + LOADS[0] + LOADS[1] + work + COPIES[1],
    )


@given(
    st.integers(1, 6).flatmap(lambda n: moves(n).map(lambda found: (found, n))),
    st.sampled_from([0.0, 0.002, 0.003, 0.85]),
)
@settings(max_examples=30)
def test_hoisting_changes_no_result_and_bounds_the_memory(drawn, fill):
    module = program_of(*drawn)
    function = module.functions()[0]
    rng = np.random.default_rng(0)
    count = sum(move.kind == "load" for move in drawn[0])
    inputs = [rng.standard_normal((64, 16)).astype(np.float32) for _ in range(count)]
    wanted = [a.tobytes() for a in run_function(function, SPEC, inputs)]
    peak = peak_of(function)
    ops = list(function.block.ops)
    loads = [ops[position] for position, _ in split_commands(ops)[0]]
    PassManager(parse_pipeline(f"hoist-loads{{fill={fill}}}")).run(module)
    assert by_buffer(op for op in dma_of(function) if op in loads) == by_buffer(loads)
    assert [a.tobytes() for a in run_function(function, SPEC, inputs)] == wanted
    bound = max(peak, fill * SPEC.lane_bytes)
    assert peak_of(function) <= bound


def by_buffer(loads) -> dict[Value, list[Op]]:
    found: dict[Value, list[Op]] = {}
    for load in loads:
        found.setdefault(load.operands[0], []).append(load)
    return found


def test_what_is_stored_takes_room_once_until_the_store_is_over():
    function = program_of([Move("load", 0, 0), Move("store", 0, 0)], 1).functions()[0]
    *ops, _ = function.block.ops
    store, last = ops[-1], len(ops) - 1
    (life,) = found = lives(ops, SPEC)
    room = Room(found, len(ops) + 4, 2 * life.bytes)
    for stop, taken in ((0, 1), (2, 3), (1, 3), (4, 5)):
        room.hold(store, last + stop)
        assert [*room.taken[last:] // life.bytes] == [1] * taken + [0] * (5 - taken)


def peak_of(function) -> int:
    ops = list(function.block.ops)
    return live_bytes(lives(ops, SPEC), len(ops)).max()


def dma_of(function) -> list[Instruction]:
    return [op for op in function.block.ops if isinstance(op, Instruction) and op.engine == "dma"]


def gather(target: str, table: str, index: str) -> str:
    """One row to lane 0, by an index in DDR."""
    return f"""
      "chip.dma_gather"({target}, {table}, {index}) <{{channels = 1 : i64, rows = 1 : i64, table_rows = 8 : i64,
          width = 16 : i64, index_stride = 0 : i64, c_stride = 16 : i64, res = {VIEW}, opd0 = {VIEW},
          opd1 = #chip.view<dtype = i32>}}> : ({LOCAL}, {DDR}, {DDR}) -> ()
    """


def test_a_gather_moves_no_further_than_behind_what_writes_its_index():
    made = load("%a", "%x") + copy("%b", "%a") + store("%t", "%b")
    late = gather("%c", "%x", "%t")
    check_pass(
        "hoist-loads",
        before=HEAD + made + WORK + late + copy("%d", "%c"),
        after=HEAD + made + late + WORK + copy("%d", "%c"),
    )


CACHE = "!chip.global<bytes = 16384>"  # 64 tokens of 4 heads of 16 numbers
MADE = load("%a", "%x") + copy("%b", "%a")


def cached(space: str = "output") -> str:
    place = ", index = 0 : i64" if space == "output" else ""
    return HEAD + f'%k = "chip.global"() <{{space = "{space}"{place}}}> : () -> {CACHE}\n'


def head_view(head: int) -> str:
    return f"#chip.view<dtype = f32, offset = {64 * head}, strides = [0, 64, 0, 1]>"


def head_dma(target: str, source: str, types: str, views: tuple[str, str]) -> str:
    return f"""
      "chip.dma"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {views[0]},
          opd0 = {views[1]}}}> : ({types}) -> ()
    """


def store_head(source: str, head: int) -> str:
    return head_dma("%k", source, f"{CACHE}, {LOCAL}", (head_view(head), VIEW))


def load_head(target: str, head: int) -> str:
    return head_dma(target, "%k", f"{LOCAL}, {CACHE}", (VIEW, head_view(head)))


@pytest.mark.parametrize("space", ["output", "scratch"])
def test_a_load_moves_behind_the_store_of_what_it_reads(space):
    stored = MADE + store_head("%b", 1)
    check_pass(
        "hoist-loads",
        before=cached(space) + stored + WORK + load_head("%c", 1) + copy("%d", "%c"),
        after=cached(space) + stored + load_head("%c", 1) + WORK + copy("%d", "%c"),
    )


def test_a_load_moves_behind_the_last_store_of_bytes_that_it_reads():
    """The other head's pieces lie between those of the first."""
    first, other = store_head("%b", 1), store_head("%b", 2)
    check_pass(
        "hoist-loads",
        before=cached() + MADE + first + WORK + other + WORK + load_head("%c", 1) + copy("%d", "%c"),
        after=cached() + MADE + first + load_head("%c", 1) + WORK + other + WORK + copy("%d", "%c"),
    )


def test_a_load_of_two_heads_waits_for_both():
    both = head_dma("%c", "%k", f"{LOCAL}, {CACHE}", (VIEW, head_view(1).replace("0, 1]", "32, 1]")))
    both = both.replace("1, 64, 1, 16", "1, 64, 2, 8")  # eight numbers of head 1, and eight of head 3
    stores = MADE + store_head("%b", 1) + WORK + store_head("%b", 3)
    check_pass(
        "hoist-loads",
        before=cached() + stores + WORK + store_head("%b", 2) + both + copy("%d", "%c"),
        after=cached() + stores + both + WORK + store_head("%b", 2) + copy("%d", "%c"),
    )


def test_a_load_of_bytes_that_nothing_stored_moves_to_the_front():
    stored = MADE + store_head("%b", 1)
    check_pass(
        "hoist-loads",
        before=cached() + stored + WORK + load_head("%c", 2) + copy("%d", "%c"),
        after=cached()
        + load("%a", "%x")
        + load_head("%c", 2)
        + stored.removeprefix(load("%a", "%x"))
        + WORK
        + copy("%d", "%c"),
    )


def test_a_load_does_not_wait_for_a_later_store_of_what_it_reads():
    late = load_head("%c", 1) + copy("%d", "%c") + store_head("%b", 1)
    check_pass(
        "hoist-loads",
        before=cached() + MADE + store_head("%b", 1) + WORK + late,
        after=cached()
        + MADE
        + store_head("%b", 1)
        + load_head("%c", 1)
        + WORK
        + late.removeprefix(load_head("%c", 1)),
    )


def test_loads_of_the_parts_of_a_buffer_move_together():
    """The second takes no more room, so it goes where the first does even when memory is full."""
    parts = load("%c", "%x") + load_head("%c", 2)
    text = cached() + load("%a", "%x") + WORK + parts + copy("%d", "%c")
    moved = cached() + load("%a", "%x") + parts + WORK + copy("%d", "%c")
    check_pass("hoist-loads", before=text, after=moved)
    check_pass(filled(3), before=text, after=moved)
    check_pass(filled(2), before=text, after=text)


def test_a_load_into_what_was_written_stays():
    text = cached() + load("%a", "%x") + WORK + copy("%c", "%a") + load_head("%c", 2) + load("%c", "%x")
    check_pass("hoist-loads", before=text, after=text)


def message(what: str, *regions: str) -> str:
    types = ", ".join([DDR] * len(regions))
    return f'"chip.{what}"({", ".join(regions)}) <{{message = 30 : i64, count = 2 : i64}}> : ({types}) -> ()\n'


@pytest.mark.parametrize("early", [False, True])
def test_loads_pass_a_wait_for_other_cores_unless_they_read_what_it_awaits(early):
    head = HEAD + region("s", "scratch") + local("e") + local("f") + load("%a", "%x")
    meeting = store("%t", "%b") + message("send", "%t") + message("wait", "%s")
    own, other = load("%e", "%x"), load("%c", "%s")
    use = copy("%d", "%c") + copy("%f", "%e")
    before = head + WORK + meeting + (own + other if early else other + own) + use
    after = head + (own + WORK + meeting + other if early else WORK + meeting + other + own) + use
    check_pass("hoist-loads", before=before, after=after)


def test_a_load_moves_up_to_a_wait_that_came_long_before():
    """Loads behind it do not wait for longer, as work stands between. One right behind the wait stays there, and
    others pass it.
    """
    head = HEAD + region("s", "shared") + local("e") + local("f") + load("%a", "%x")
    wait, other, own, use = message("wait", "%s"), load("%c", "%s"), load("%e", "%x"), copy("%d", "%c") + copy("%f", "%e")
    check_pass(
        "hoist-loads",
        before=head + WORK + wait + WORK + other + own + use,
        after=head + WORK + wait + other + own + WORK + use,
    )
    check_pass("hoist-loads", before=head + WORK + wait + other + own + use, after=head + own + WORK + wait + other + use)
