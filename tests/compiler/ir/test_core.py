import weakref

import pytest

from compiler.garbage import uncollected
from compiler.ir.core import Block, Region
from compiler.ir.module import Builder, discard, walk
from dialects.builtin import FuncOp, ModuleOp, ReturnOp
from tests.compiler.ir.toy import ROW, LinearOp, LoopOp, MulOp, NormOp, SiluOp, StoreOp


@pytest.fixture
def block() -> Block:
    return Block([ROW, ROW])


def chain(block: Block, length: int) -> list[SiluOp]:
    ops = []
    value = block.args[0]
    for _ in range(length):
        ops.append(block.append(SiluOp(value)))
        value = ops[-1].y
    return ops


def test_ops_keep_their_order_under_insert_move_and_erase(block):
    a, b, c = chain(block, 3)
    d = block.insert_before(b, SiluOp(block.args[1]))
    assert list(block.ops) == [a, d, b, c]
    d.move_before(a)
    assert list(reversed(block.ops)) == [c, b, a, d]
    d.erase()
    assert (len(block.ops), block.ops[0], block.ops[-1], block.ops[1]) == (3, a, c, b)


def test_order_is_known_after_changes(block):
    a, b, c = chain(block, 3)
    assert a.is_before(c)
    c.move_before(a)
    assert c.is_before(b)
    assert not b.is_before(a)


def test_erasing_the_current_op_while_iterating(block):
    for op in block.ops:
        op.erase()
    chain(block, 4)
    seen = []
    for op in block.ops:
        seen.append(op)
        if op.is_dead():
            op.erase()
    assert len(seen) == 4
    assert len(block.ops) == 3


def test_erasing_the_next_op_while_iterating_is_an_error(block):
    a = block.append(SiluOp(block.args[0]))
    b = block.append(SiluOp(block.args[0]))

    def erase_two():
        for _ in block.ops:
            a.erase()
            b.erase()

    with pytest.raises(RuntimeError, match=r"iterate over list\(block.ops\)"):
        erase_two()


def test_an_op_in_use_cannot_be_erased(block):
    a, _ = chain(block, 2)
    with pytest.raises(AssertionError, match=r"erasing toy\.silu"):
        a.erase()


def test_many_ops_are_erased_at_once(block):
    a, b, c = chain(block, 3)
    d = block.append(SiluOp(block.args[0]))
    left = weakref.ref(c)
    block.erase_all([b, c])
    assert (len(block.ops), list(block.ops), block.terminator) == (2, [a, d], d)
    assert not a.has_uses()
    assert block.args[0].users == [a, d]
    with uncollected():
        del b, c
        assert left() is None
    block.erase_all([a, d])
    assert (len(block.ops), block.ops.first, block.args[0].has_uses()) == (0, None, False)


def test_ops_that_another_uses_cannot_be_erased_at_once(block):
    a, b, _ = chain(block, 3)
    with pytest.raises(AssertionError, match=r"while toy\.silu uses it"):
        block.erase_all([a, b])


def test_replacing_a_value_moves_every_use(block):
    a, b = block.args
    mul = block.append(MulOp(a, a))
    assert not a.has_one_use()
    assert a.users == [mul]
    a.replace_by(b)
    assert mul.operands == (b, b)
    assert b.uses == ((mul, 0), (mul, 1))
    assert not a.has_uses()


def test_defining_asks_for_a_class(block):
    (a,) = chain(block, 1)
    assert a.y.defining(SiluOp) is a
    assert a.y.defining(MulOp) is None
    assert block.args[0].defining(SiluOp) is None


def test_a_clone_maps_operands_and_regions(block):
    a, b = block.args
    body = Block([ROW])
    body.append(MulOp(body.args[0], a))
    loop = block.append(LoopOp([a], body=Region(body)))
    copy = block.append(loop.clone({a: b}))
    inner = copy.body.block.ops[0]
    assert copy.operands == (b,)
    assert inner.operands == (copy.body.block.args[0], b)
    assert b.users == [inner, copy]


def test_erasing_an_op_erases_its_regions(block):
    body = Block()
    body.append(SiluOp(block.args[0]))
    loop = block.append(LoopOp(body=Region(body)))
    loop.erase()
    assert not block.args[0].has_uses()


def test_memory_of_an_erased_op_is_free_at_once(block):
    with uncollected():
        op = weakref.ref(block.append(LoopOp(body=Region(Block([ROW])))))
        op().erase()
        assert op() is None


def test_memory_of_a_discarded_module_is_free_at_once():
    f = FuncOp.with_args("f", [ROW], [ROW])
    ops = chain(f.block, 3)
    f.block.append(ReturnOp(ops[-1].y))
    module = ModuleOp.of(f)
    gone = [weakref.ref(op) for op in (module, f, *ops)]
    with uncollected():
        discard(module)
        del module, f, ops
        assert [op() for op in gone] == [None] * 5


def test_effects_and_uses_keep_an_op_alive(block):
    store = block.append(StoreOp(block.args[0]))
    a, b = chain(block, 2)
    assert not store.is_dead()
    assert not a.is_dead()
    assert b.is_dead()


def test_builders_insert_at_their_place(block):
    a, b = chain(block, 2)
    first = Builder.before(a).add(SiluOp(block.args[0]))
    before = Builder.before(b)
    second, third = before.add(SiluOp(a.y)), before.add(SiluOp(a.y))
    last = Builder(block).add(SiluOp(b.y))
    assert list(block.ops) == [first, a, second, third, b, last]


def test_a_module_finds_its_functions():
    f, g = FuncOp.with_args("f", [ROW], [ROW], ["x"]), FuncOp.with_args("g", [])
    module = ModuleOp.of(f, g)
    f.block.append(ReturnOp(f.args[0]))
    assert module.functions() == [f, g]
    assert module.function("g") is g
    assert f.args[0].name_hint == "x"
    assert list(walk(module)) == [module, f, f.terminator, g]
    with pytest.raises(KeyError, match="no function 'h'; the module has f, g"):
        module.function("h")


def test_a_function_updates_its_type():
    f = FuncOp.with_args("f", [ROW])
    f.block.append(ReturnOp(f.args[0], f.args[0]))
    f.update_type()
    assert f.function_type.results == (ROW, ROW)


def test_erasing_an_argument_renumbers_the_rest(block):
    first, second = block.args
    block.erase_arg(first)
    assert block.args == [second]
    assert second.index == 0


def test_all_ops_may_be_put_into_another_order_at_once(block):
    ops = chain(block, 4)
    assert ops[0].is_before(ops[3])
    order = [ops[2], ops[0], ops[3], ops[1]]
    block.ops.arrange(order)
    assert list(block.ops) == order
    assert list(reversed(block.ops)) == order[::-1]
    assert (block.ops.first, block.ops.last) == (ops[2], ops[1])
    assert ops[2].is_before(ops[0])
    assert ops[3].is_before(ops[1])
    last = block.append(SiluOp(block.args[0]))
    assert list(block.ops) == [*order, last]
    with pytest.raises(AssertionError, match="4 ops in the place of 5"):
        block.ops.arrange(order)


def test_clones_share_attributes_and_a_change_to_one_is_none_to_the_other(block):
    norm = block.append(NormOp(*block.args, eps=1e-6))
    copy = norm.clone()
    assert copy.attributes is norm.attributes
    copy.eps = 1e-5
    assert (norm.eps, copy.eps) == (1e-6, 1e-5)


def test_an_optional_attribute_that_is_taken_away_is_gone(block):
    linear = block.append(LinearOp(block.args[0], act="silu"))
    attributes = linear.attributes
    linear.act = None
    assert "act" not in linear.attributes
    assert attributes["act"] == "silu"
