"""A net for two cores, written by hand: each core adds its own input to what it is given by the other.

    core 0: y = a + b        core 1: z = a + b        with a loaded by core 0 and b by core 1

Both meet at the start, in the middle to exchange what they loaded, and at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

from compiler.ir.module import Module
from compiler.target.chips import chip
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from tests.helpers import parse_ir

SPEC = chip("bm1688")
PLACING = "hoist-stores,hoist-loads{fill=0.85},allocate-local,assign-addresses,insert-waits"
SHAPE = (1, 32, 1, 16)
LOCAL, DDR = "!chip.local<bytes = 64>", "!chip.global<bytes = 2048>"
VIEW = "#chip.view<dtype = f32>"
NET = """#bm.net<name = "sum", inputs = [#bm.input<name = "a">, #bm.input<name = "b">],
    outputs = [#bm.output<name = "y">, #bm.output<name = "z">],
    part = #bm.part<core = {core}, cores = 2, writes = [{core}]>>"""
OWN = ({"in": "a", "mine": "s", "theirs": "t", "out": "y"}, {"in": "b", "mine": "t", "theirs": "s", "out": "z"})


def two_cores(without: tuple[str, ...] = (), **numbers: int) -> Module:
    """The module; without the meetings named there, "start", "middle" and "end", or with other messages."""
    load_all()
    functions = "".join(core_text(core, without, {"start": 30, "middle": 31, "end": 30, **numbers}) for core in (0, 1))
    module, _ = parse_ir(f'"builtin.module"() ({{ {functions} }}) : () -> ()', target=SPEC)
    return module


def one_core() -> Module:
    """The same by one core alone, as the net "alone"."""
    load_all()
    net = NET.format(core=0).replace('"sum"', '"alone"').partition("part")[0].rstrip().rstrip(",") + ">"
    text = f"""
      "builtin.module"() ({{ "func.func"() <{{sym_name = "alone", function_type = () -> ()}}> ({{
        {REGIONS} {BUFFERS}
        {copy("%x", "%a")} {copy("%w", "%b")} {add("%o", "%x", "%w")} {copy("%y", "%o")} {copy("%z", "%o")}
        "func.return"() : () -> ()
      }}) {{bm.net = {net}}} : () -> () }}) : () -> ()
    """
    return parse_ir(text, target=SPEC)[0]


def placed(module: Module) -> Module:
    PassManager(parse_pipeline(PLACING)).run(module)
    return module


def core_text(core: int, without: tuple[str, ...], messages: Mapping[str, int]) -> str:
    own = OWN[core]

    def meet(where: str, published: str, awaited: str) -> str:
        if where in without:
            return ""
        return message("send", messages[where], published) + message("wait", messages[where], awaited)

    start = ("a, b", "") if core == 0 else ("", "a, b")
    end = (own["out"], OWN[1 - core]["out"])
    both = ("%x", "%w") if core == 0 else ("%w", "%x")  # in the order of the cores
    return f"""
      "func.func"() <{{sym_name = "sum.{core}", function_type = () -> ()}}> ({{
        {REGIONS} {region("s", "shared", 0)} {region("t", "shared", 1)} {BUFFERS}
        {meet("start", *start)}
        {copy("%x", "%" + own["in"])} {copy("%" + own["mine"], "%x")}
        {meet("middle", own["mine"], own["theirs"])}
        {copy("%w", "%" + own["theirs"])}
        {add("%o", *both)} {copy("%" + own["out"], "%o")}
        {meet("end", *end)}
        "func.return"() : () -> ()
      }}) {{bm.net = {NET.format(core=core)}}} : () -> ()
    """


def region(name: str, space: str, index: int) -> str:
    tensor = "" if space == "shared" else f", tensor = tensor<{'x'.join(map(str, SHAPE))}xf32>"
    return f'%{name} = "chip.global"() <{{space = "{space}", index = {index} : i64{tensor}}}> : () -> {DDR} '


def copy(target: str, source: str) -> str:
    types = ", ".join(LOCAL if name in ("%x", "%w", "%o") else DDR for name in (target, source))
    return f"""
      "chip.dma"({target}, {source}) <{{kind = "copy", shape = array<i64: {", ".join(map(str, SHAPE))}>, res = {VIEW},
          opd0 = {VIEW}}}> : ({types}) -> ()
    """


def add(target: str, first: str, second: str) -> str:
    return f"""
      "chip.ar"({target}, {first}, {second}) <{{kind = "add", shape = array<i64: {", ".join(map(str, SHAPE))}>,
          res = {VIEW}, opd0 = {VIEW}, opd1 = {VIEW}, round = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 1>}}>
          : ({LOCAL}, {LOCAL}, {LOCAL}) -> ()
    """


def message(what: str, number: int, regions: str) -> str:
    names = [f"%{name.strip()}" for name in regions.split(",") if name.strip()]
    return f"""
      "chip.{what}"({", ".join(names)}) <{{message = {number} : i64, count = 2 : i64}}>
          : ({", ".join([DDR] * len(names))}) -> ()
    """


REGIONS = "".join(region(name, space, i) for space, names in (("input", "ab"), ("output", "yz")) for i, name in enumerate(names))
BUFFERS = "".join(f'%{name} = "chip.local"() : () -> {LOCAL} ' for name in "xwo")
