"""Local memory: buffers alive at once never share bytes, and what does not fit is said."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.diagnostics import CompileError
from compiler.ir.module import Builder
from compiler.ir.types import F32
from compiler.target.chips.bm1684x import BM1684X
from dialects import chip
from dialects.builtin import FuncOp, ModuleOp, ReturnOp
from dialects.chip import GlobalOp, GlobalType, LocalOp, LocalType, View
from passes import load_all
from passes.chip.allocate_local import DoesNotFit
from passes.chip.lives import live_bytes, lives, shortest
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import run_function
from tests.helpers import check_pass, random_tensor
from tests.passes.chip.random_programs import ROWS, Move, moves
from tests.passes.chip.random_programs import program_of as random_program

VIEW = "#chip.view<dtype = f32>"


def copy(target: str, source: str, sizes: tuple[int, int]) -> str:
    types = ", ".join(f"!chip.local<bytes = {size}>" for size in sizes)
    return f"""
      "chip.ar"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {VIEW},
          opd0 = {VIEW}, round = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({types}) -> ()
    """


def local(name: str, size: int, offset: int | None = None) -> str:
    attribute = "" if offset is None else f" <{{offset = {offset} : i64}}>"
    return f'{name} = "chip.local"(){attribute} : () -> !chip.local<bytes = {size}>'


def test_a_buffer_takes_the_place_of_one_that_is_no_longer_used():
    def program(*offsets: int | None) -> str:
        return f"""
          {local("%a", 128, offsets[0])}
          {local("%b", 64, offsets[1])}
          {local("%c", 64, offsets[2])}
          {copy("%b", "%a", (64, 128))}
          {copy("%c", "%b", (64, 64))}
          {copy("%b", "%c", (64, 64))}
        """

    bank = BM1684X.bank_bytes  # away from what it is copied from
    check_pass("allocate-local", before=program(None, None, None), after=program(bank, 0, bank))


def test_a_buffer_that_nothing_uses_goes():
    used = f"{local('%b', 64)}\n{copy('%b', '%b', (64, 64))}"
    placed = f"{local('%b', 64, 0)}\n{copy('%b', '%b', (64, 64))}"
    returned = '"func.return"() : () -> ()'
    before = f"{local('%a', 64)}\n{used}\n{returned}"
    check_pass("allocate-local", before=before, after=f"{placed}\n{returned}")


def test_what_dma_loads_goes_to_the_high_end():
    def program(*offsets: int | None) -> str:
        return f"""
          %x = "chip.global"() <{{space = "input", index = 0 : i64}}> : () -> !chip.global<bytes = 4096>
          {local("%a", 64, offsets[0])}
          {local("%b", 64, offsets[1])}
          "chip.dma"(%a, %x) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {VIEW}, opd0 = {VIEW}}}>
             : (!chip.local<bytes = 64>, !chip.global<bytes = 4096>) -> ()
          {copy("%b", "%a", (64, 64))}
        """

    last = BM1684X.lane_bytes - 64
    check_pass("allocate-local", before=program(None, None), after=program(last, 0))


SMALL, LARGE = 64, 3 * BM1684X.lane_bytes // 4
DDR = "!chip.global<bytes = 4096>"
REGION = f'%y = "chip.global"() <{{space = "output", index = 0 : i64}}> : () -> {DDR}\n'


def fill(target: str, size: int) -> str:
    return f"""
      "chip.ar"({target}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {VIEW}, round = 0 : i64,
          opd0 = #chip.const<dtype = f32, bits = 0>, operandSegmentSizes = array<i32: 1, 0, 0>}}>
          : (!chip.local<bytes = {size}>) -> ()
    """


def dma(target: str, source: str, types: str) -> str:
    return f"""
      "chip.dma"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {VIEW},
          opd0 = {VIEW}}}> : ({types}) -> ()
    """


def stored(size: int, *offsets: int | None, before: str = "", between: str = "", after: str = "") -> str:
    """%a is filled and stored, then %b is filled; and what is done before the store, between, and after."""
    names = [local(name, size, offset) for name, offset in zip(("%a", "%b"), offsets, strict=True)]
    return f"""
      {REGION}
      {names[0]}
      {names[1]}
      {fill("%a", size)}
      {before}
      {dma("%y", "%a", f"{DDR}, !chip.local<bytes = {size}>")}
      {between}
      {fill("%b", size)}
      {after}
    """


def test_a_result_does_not_take_the_place_of_what_is_being_stored():
    check_pass("allocate-local", before=stored(SMALL, None, None), after=stored(SMALL, 0, SMALL))


def test_a_result_takes_the_place_of_what_is_being_stored_where_there_is_no_other():
    check_pass("allocate-local", before=stored(LARGE, None, None), after=stored(LARGE, 0, 0))


def test_loaded_data_still_goes_to_the_high_end_where_results_must_share():
    def program(*offsets: int | None) -> str:
        x = '%x = "chip.global"() <{space = "input", index = 1 : i64}> : () -> ' + DDR
        load = dma("%w", "%x", f"!chip.local<bytes = {SMALL}>, {DDR}")
        return stored(LARGE, *offsets[:2], between=f"{x}\n{local('%w', SMALL, offsets[2])}\n{load}")

    check_pass(
        "allocate-local", before=program(None, None, None), after=program(0, 0, BM1684X.lane_bytes - SMALL)
    )


def test_tight_packing_gives_up_the_room_of_what_is_being_stored():
    """%b does not fit beside %h, which lies in the middle, until both are packed anew."""
    quarter = BM1684X.lane_bytes // 4

    def program(*offsets: int | None) -> str:
        a, b, h = (local(name, size, o) for (name, size), o in zip(sizes.items(), offsets, strict=True))
        store = dma("%y", "%a", f"{DDR}, !chip.local<bytes = {quarter}>")
        fills = fill("%a", quarter) + fill("%h", quarter) + store + fill("%b", 3 * quarter)
        return REGION + f"{a}\n{b}\n{h}\n" + fills + fill("%h", quarter)

    sizes = {"%a": quarter, "%b": 3 * quarter, "%h": quarter}
    check_pass("allocate-local", before=program(None, None, None), after=program(0, 0, 3 * quarter))


def test_what_finds_no_room_has_its_place_first_and_loads_stay_at_the_high_end():
    """%b does not fit beside %h, which lies in the middle, until %h keeps out of its way."""
    quarter = BM1684X.lane_bytes // 4
    sizes = {"a": quarter, "b": 3 * quarter - 4096, "h": quarter, "w": 64}
    read = copy("%h", "%w", (quarter, 64))
    lines = [load("%w", 64), fill("%a", quarter), read, fill("%a", quarter), fill("%b", sizes["b"]), read]
    check_order(sizes, lines, lines, a=0, b=0, h=sizes["b"], w=BM1684X.lane_bytes - 64)


def test_a_store_begins_when_its_data_is_there():
    """However long that takes, it is not over for the next result."""

    def program(*offsets: int | None) -> str:
        return stored(SMALL, *offsets, before=300 * fill("%a", SMALL))

    check_pass("allocate-local", before=program(None, None), after=program(0, SMALL))


@pytest.mark.parametrize(("work", "offset"), [(1, SMALL), (300, 0)])
def test_a_result_takes_the_place_of_what_was_stored_long_ago(work, offset):
    def program(*offsets: int | None) -> str:
        between = local("%w", SMALL, offsets[2]) + work * fill("%w", SMALL)
        return stored(SMALL, *offsets[:2], between=between)

    check_pass("allocate-local", before=program(None, None, None), after=program(0, offset, SMALL))


def test_what_was_stored_long_ago_keeps_its_place_while_it_is_used():
    def program(*offsets: int | None) -> str:
        between = local("%w", SMALL, offsets[2]) + 300 * fill("%w", SMALL)
        return stored(SMALL, *offsets[:2], between=between, after=fill("%a", SMALL))

    check_pass("allocate-local", before=program(None, None, None), after=program(0, SMALL, SMALL))


Sizes = list[tuple[int, int, int]]  # of each buffer: EU widths, first and last instruction


def program_of(buffers: Sizes, loaded: list[bool]) -> ModuleOp:
    """Instructions that read buffers for as long as each is to live."""
    load_all()
    function = FuncOp.with_args("test", [])
    build = Builder(function.block)
    source = build.add(GlobalOp(space="input", index=0, types=[GlobalType(4096)])).results[0]
    values = [build.add(LocalOp(types=[LocalType(64 * units)])).results[0] for units, _, _ in buffers]
    view, shape = View(F32), (1, 1, 1, 1)
    for time in range(1 + max(last for _, _, last in buffers)):
        for value, (_, first, last), is_loaded in zip(values, buffers, loaded, strict=True):
            if time == first and is_loaded:
                build.add(chip.DmaTensorOp(value, source, kind="copy", shape=shape, res=view, opd0=view))
            elif time in (first, last):
                build.add(chip.ArOp(value, value, None, kind="copy", shape=shape, res=view, opd0=view))
    build.add(ReturnOp())
    return ModuleOp.of(function, target="bm1684x")


def lifetimes(module: ModuleOp) -> list[tuple[int, int, int, int]]:
    """(start, stop, first, last) of each buffer: bytes, and positions in the program."""
    ops = list(module.functions()[0].block.ops)
    found = []
    for op in ops:
        if isinstance(op, LocalOp) and op.buffer.has_uses():
            uses = [ops.index(user) for user in op.buffer.users]
            assert op.offset is not None
            found.append((op.offset, op.offset + op.buffer.type.bytes, min(uses), max(uses)))
    return found


@st.composite
def buffer_lists(draw: st.DrawFn) -> Sizes:
    largest = draw(st.sampled_from([40, 400, 1500]))  # EU widths; a lane has 4096
    count = draw(st.integers(1, 14))
    spans = [sorted(draw(st.tuples(st.integers(0, 12), st.integers(0, 12)))) for _ in range(count)]
    return [(draw(st.integers(1, largest)), *span) for span in spans]


@given(buffer_lists(), st.data())
def test_buffers_alive_at_once_do_not_overlap(buffers, data):
    loaded = [data.draw(st.booleans()) for _ in buffers]
    module = program_of(buffers, loaded)
    pressure = max(sum(u for u, first, last in buffers if first <= t <= last) for t in range(13)) * 64
    try:
        PassManager(parse_pipeline("allocate-local")).run(module)
    except DoesNotFit:
        assert pressure > BM1684X.lane_bytes // 2, "refused although half of the memory was free"
        return
    found = lifetimes(module)
    assert len(found) == len(buffers)
    assert all(0 <= start and stop <= BM1684X.lane_bytes and start % 64 == 0 for start, stop, _, _ in found)
    for one, other in itertools.combinations(found, 2):
        apart_in_time = one[3] < other[2] or other[3] < one[2]
        apart_in_space = one[1] <= other[0] or other[1] <= one[0]
        assert apart_in_time or apart_in_space, f"{one} and {other}"


@given(st.integers(1, 4).flatmap(lambda n: moves(n).map(lambda found: (found, n))))
@settings(max_examples=40)
def test_a_program_computes_the_same_in_the_places_found(drawn):
    found, buffers = drawn
    first = [Move("fill", buffer, row) for buffer in range(buffers) for row in range(ROWS)]
    module = random_program([*first, *found], buffers)
    function = module.functions()[0]
    count = sum(move.kind == "load" for move in found)
    inputs = [random_tensor(64, 16, seed=seed) for seed in range(count)]
    wanted = [a.tobytes() for a in run_function(function, BM1684X, inputs)]
    PassManager(parse_pipeline("allocate-local")).run(module)
    assert [a.tobytes() for a in run_function(function, BM1684X, inputs)] == wanted


@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=8).flatmap(
        lambda sizes: moves(len(sizes)).map(lambda found: (found, sizes))
    )
)
@settings(max_examples=60)
def test_loads_ahead_that_do_not_fit_go_down_and_change_nothing(drawn):
    """Buffers of up to 7 / 10 of a lane, each loaded before it is used."""
    drawn_moves, sizes = drawn
    found: list[Move] = []
    for move in drawn_moves:
        used = {move.target, move.source} - {other for past in found for other in (past.target, past.source)}
        found += [Move("load", buffer, row, buffer) for buffer in sorted(used) for row in range(ROWS)]
        found.append(move)
    module = random_program(found, len(sizes), [size * BM1684X.lane_bytes // 640 * 64 for size in sizes])
    function = module.functions()[0]
    inputs = [random_tensor(64, 16, seed=seed) for seed in range(sum(move.kind == "load" for move in found))]
    wanted = [a.tobytes() for a in run_function(function, BM1684X, inputs)]
    ops = list(function.block.ops)
    peak = max(live_bytes(shortest(lives(ops, BM1684X)), len(ops)))
    try:
        PassManager(parse_pipeline("hoist-loads{fill=1.0},allocate-local")).run(module)
    except DoesNotFit:
        assert peak > BM1684X.lane_bytes // 2, "refused although half of the memory was free"
        return
    for one, other in itertools.combinations(lifetimes(module), 2):
        assert one[3] < other[2] or other[3] < one[2] or one[1] <= other[0] or other[1] <= one[0]
    assert [a.tobytes() for a in run_function(function, BM1684X, inputs)] == wanted


QUARTER = BM1684X.lane_bytes // 4
HALF, MOST, REST = 2 * QUARTER, 3 * QUARTER, 2 * QUARTER + 64
X = f'%x = "chip.global"() <{{space = "input", index = 0 : i64}}> : () -> {DDR}\n'


def load(name: str, size: int, source: str = "%x") -> str:
    return dma(name, source, f"!chip.local<bytes = {size}>, {DDR}")


def check_order(sizes: dict[str, int], before: list[str], after: list[str], **offsets: int) -> None:
    """Buffers have names of one letter."""

    def program(lines: list[str], *places: int | None) -> str:
        found = [local(f"%{name}", sizes[name], place) for name, place in zip(sizes, places, strict=True)]
        return REGION + X + "\n".join(found + lines)

    placed = program(after, *(offsets[name] for name in sizes))
    check_pass("allocate-local", before=program(before, *[None] * len(sizes)), after=placed)


def test_a_load_without_room_goes_down_to_where_there_is_some():
    load_w, work = load("%w", HALF), fill("%a", MOST) + copy("%a", "%a", (MOST, MOST))
    rest = fill("%o", 64) + copy("%o", "%w", (64, HALF))
    check_order(
        {"a": MOST, "w": HALF, "o": 64},
        before=[load_w, work, rest],
        after=[work, load_w, rest],
        a=0, w=HALF, o=0,
    )  # fmt: skip


def test_a_load_goes_down_to_what_reads_it_at_the_most():
    load_w, work, read = load("%w", HALF), 3 * fill("%a", MOST), 2 * copy("%w", "%w", (HALF, HALF))
    check_order(
        {"a": MOST, "w": HALF}, before=[load_w, work, read], after=[work, load_w, read], a=0, w=HALF
    )


def test_a_load_does_not_go_behind_a_store_that_overwrites_what_it_reads():
    load_w, work = load("%w", HALF, "%y"), fill("%a", MOST) + copy("%a", "%a", (MOST, MOST))
    store = dma("%y", "%b", f"{DDR}, !chip.local<bytes = 64>")
    rest = fill("%o", 64) + copy("%o", "%w", (64, HALF))
    check_order(
        {"a": MOST, "b": 64, "w": HALF, "o": 64},
        before=[fill("%b", 64), load_w, work, store, rest],
        after=[fill("%b", 64), work, load_w, store, rest],
        a=64, b=0, w=HALF, o=64,
    )  # fmt: skip


def test_a_load_does_not_go_behind_a_store_of_it():
    store = dma("%y", "%w", f"{DDR}, !chip.local<bytes = {HALF}>")
    lines = [load("%w", HALF), fill("%a", MOST), store, load("%b", 64, "%y"), fill("%a", MOST), fill("%w", HALF)]
    text = REGION + X + "\n".join([local("%a", MOST), local("%w", HALF), local("%b", 64), *lines])
    with pytest.raises(DoesNotFit, match=f"needs {MOST + HALF + 64} bytes"):
        check_pass("allocate-local", before=text, after=text)


def test_of_two_loads_ahead_the_one_that_is_read_last_goes_down():
    load_v, load_w, begin = load("%v", QUARTER), load("%w", QUARTER), fill("%a", REST)
    work = copy("%v", "%v", (QUARTER, QUARTER)) + copy("%a", "%a", (REST, REST))
    rest = fill("%o", 64) + copy("%o", "%w", (64, QUARTER))
    check_order(
        {"v": QUARTER, "w": QUARTER, "a": REST, "o": 64},
        before=[load_v, load_w, begin, work, rest],
        after=[load_v, begin, work, load_w, rest],
        v=MOST, w=MOST, a=0, o=0,
    )  # fmt: skip


def test_what_does_not_fit_is_said_without_loads_ahead_and_at_the_worst_point():
    sizes = {"%w": HALF, "%a": MOST, "%b": HALF}
    lines = [load("%w", HALF), fill("%a", MOST), fill("%b", HALF), copy("%b", "%a", (HALF, MOST)), fill("%w", HALF)]
    text = REGION + X + "\n".join([local(name, size) for name, size in sizes.items()] + lines)
    with pytest.raises(DoesNotFit, match=f"needs {MOST + HALF} bytes") as failure:
        check_pass("allocate-local", before=text, after=text)
    assert failure.value.op is not None
    assert failure.value.op.operands[0].type.bytes == HALF


def test_what_does_not_fit_is_named_with_both_numbers():
    text = f"""
      {local("%a", 200_000)}
      {local("%b", 100_000)}
      {copy("%b", "%a", (100_000, 200_000))}
    """
    message = r"test needs 300000 bytes of local memory per lane at one point.* do not fit the 262144 of bm1684x"
    with pytest.raises(CompileError, match=message):
        check_pass("allocate-local", before=text, after=text)
