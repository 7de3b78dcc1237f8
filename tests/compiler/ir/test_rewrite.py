import pytest

from compiler.diagnostics import CompileError
from compiler.ir.core import Block, Op
from compiler.ir.location import NameLoc
from compiler.ir.parser import parse_body
from compiler.ir.printer import print_module
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from tests.compiler.ir.toy import ROW, LoopOp, MulOp, SiluOp, StoreOp, SwigluOp, fuse_swiglu

T = "tensor<4x8xbf16>"


def loop_over(text: str) -> LoopOp:
    return LoopOp(body=parse_body(text.replace("T", T)))


def names(loop: Op) -> list[str]:
    return [op.opname for op in loop.region.block.ops]


def test_a_replaced_op_and_its_dead_producer_go():
    loop = loop_over("""
        %a = "toy.silu"(%gate) : (T) -> T
        %y = "toy.mul"(%a, %up) : (T, T) -> T loc("mlp")
        %z = "toy.silu"(%y) : (T) -> T
    """)
    assert apply_patterns(loop, [fuse_swiglu]) > 0
    assert names(loop) == ["toy.swiglu", "toy.silu"]
    swiglu, silu = loop.body.block.ops
    assert silu.operands == swiglu.results
    assert swiglu.loc == NameLoc("mlp")
    assert swiglu.result.name_hint == "y"


def test_a_producer_that_is_read_elsewhere_stays():
    loop = loop_over("""
        %a = "toy.silu"(%gate) : (T) -> T
        %y = "toy.mul"(%a, %up) : (T, T) -> T
        %z = "toy.mul"(%a, %y) : (T, T) -> T
    """)
    text = print_module(loop)
    assert apply_patterns(loop, [fuse_swiglu]) == 0
    assert print_module(loop) == text


def test_a_producer_with_effects_stays():
    @rewrite(SiluOp)
    def drop(op: SiluOp, rw: Rewriter) -> None:
        rw.erase(op)

    loop = loop_over("""
        %a = "toy.store"(%x) : (T) -> T
        %y = "toy.silu"(%a) : (T) -> T
    """)
    apply_patterns(loop, [drop])
    assert names(loop) == ["toy.store"]
    assert isinstance(loop.body.block.ops[0], StoreOp)


def test_rewrites_run_to_a_fixed_point_and_reach_users():
    @rewrite(SiluOp)
    def double_silu(op: SiluOp, rw: Rewriter) -> None:
        """silu(silu(x)) -> silu(x)"""
        if inner := op.x.defining(SiluOp):
            rw.replace(op, SiluOp(inner.x, loc=op.loc))

    loop = loop_over("\n".join(f'%{i + 1} = "toy.silu"(%{i}) : (T) -> T' for i in range(20)))
    apply_patterns(loop, [double_silu])
    assert names(loop) == ["toy.silu"]


def test_readers_of_a_replaced_value_are_visited_again():
    """The silu is visited first, and fits only once the mul below has replaced its producer."""

    @rewrite(MulOp)
    def replace_producer(op: MulOp, rw: Rewriter) -> None:
        if store := op.lhs.defining(StoreOp):
            rw.replace(store, SwigluOp(store.x, store.x))

    @rewrite(SiluOp)
    def fold(op: SiluOp, rw: Rewriter) -> None:
        if op.x.defining(SwigluOp):
            rw.replace(op, op.x)

    loop = loop_over("""
        %p = "toy.store"(%x) : (T) -> T
        %u = "toy.silu"(%p) : (T) -> T
        %v = "toy.mul"(%p, %u) : (T, T) -> T
    """)
    apply_patterns(loop, [fold, replace_producer])
    assert names(loop) == ["toy.swiglu", "toy.mul"]


def test_replacing_by_a_value():
    @rewrite(SiluOp)
    def drop(op: SiluOp, rw: Rewriter) -> None:
        rw.replace(op, op.x)

    loop = loop_over('%a = "toy.silu"(%x) : (T) -> T\n%y = "toy.mul"(%a, %a) : (T, T) -> T')
    apply_patterns(loop, [drop])
    assert loop.body.block.ops[0].operands == tuple(loop.body.block.args * 2)


def test_patterns_may_be_methods_and_see_several_classes():
    class Counting:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @rewrite(SiluOp, MulOp)
        def count(self, op: Op, rw: Rewriter) -> None:
            self.seen.append(op.opname)

    counting = Counting()
    loop = loop_over("""
        %a = "toy.silu"(%x) : (T) -> T
        %b = "toy.store"(%x) : (T) -> T
        %c = "toy.mul"(%a, %b) : (T, T) -> T
    """)
    apply_patterns(loop, [counting.count])
    assert counting.seen == ["toy.silu", "toy.mul"]


def test_ops_inserted_before_and_after_are_visited():
    @rewrite(MulOp)
    def wrap(op: MulOp, rw: Rewriter) -> None:
        if not isinstance(op.lhs.owner, SiluOp):
            silu = rw.insert_before(op, SiluOp(op.lhs))
            op.lhs = silu.y
            rw.insert_after(op, SwigluOp(op.y, op.rhs))

    loop = loop_over('%c = "toy.mul"(%a, %b) : (T, T) -> T')
    apply_patterns(loop, [wrap])
    assert names(loop) == ["toy.silu", "toy.mul", "toy.swiglu"]


def test_rewrites_that_undo_each_other_are_stopped():
    @rewrite(MulOp)
    def swap(op: MulOp, rw: Rewriter) -> None:
        rw.replace(op, MulOp(op.rhs, op.lhs))

    with pytest.raises(CompileError, match="the rewrites swap undo each other"):
        apply_patterns(loop_over('%c = "toy.mul"(%a, %b) : (T, T) -> T'), [swap])


def test_a_replacement_has_as_many_values():
    block = Block([ROW])
    op = block.append(SiluOp(block.args[0]))
    with pytest.raises(ValueError, match=r"toy\.silu has 1 results, replaced by 0 values"):
        Rewriter().replace(op, [])
