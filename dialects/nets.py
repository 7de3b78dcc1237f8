"""What a function is to the client that runs it: one attribute, `bm.net`, which the front end puts on it.

    {bm.net = #bm.net<name = "block_cache", bound = "layer", quantizable = true,
        inputs = [#bm.input<name = "input_states", tokens = 1>, ...
                  #bm.input<name = "history_k", kept = "session">, ...],
        outputs = [#bm.output<name = "output_states", tokens = 1>, ...]>}

Passes keep it. While a function has arguments and results, it tells of them in order; once they are regions
of DDR, the `index` of a region counts in its lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from compiler.client_nets import kind_of, net_name, stage_name
from compiler.ir.module import Function
from compiler.ir.types import Attribute, FunctionType, TensorType, Type, attr_def

KEY = "bm.net"


class NetValue(Attribute):
    """What an argument and a result have in common.

    `tokens` is the axis that counts the tokens of a call; what has none is the same for any number of them.
    `index` is its place among those of the net, where a function has but some of them. What is `hidden` goes
    from a step of a device to later ones by its name, unknown to the client.
    """

    name: str
    tokens: int | None
    index: int | None
    hidden: bool

    def name_on(self, device: int) -> str:
        """What it is called in a file for several devices, by the one whose function has it."""
        return f"{self.name}.{device}"

    def problem_of(self, type: Type) -> str | None:
        """What does not fit between this and a value of that type."""
        if self.tokens is None or (isinstance(type, TensorType) and 0 <= self.tokens < type.rank):
            return None
        return f"has the tokens of {self.name!r} on axis {self.tokens}, which {type} has not"

    def token_count(self, type: Type) -> int | None:
        """Tokens of a call by a value of that type; None when it has no axis for them."""
        return type.shape[self.tokens] if self.tokens is not None and isinstance(type, TensorType) else None


@attr_def("bm.input")
@dataclass(frozen=True)
class NetInput(NetValue):
    """An argument that the client writes.

    `kept` is how long the client relies on what it wrote: for one "launch"; for a "run" over all layers, so
    that every net bound to a layer finds it where the first one did and leaves it as it is; or for a
    "session", during which the client adds to it between launches.
    """

    name: str
    tokens: int | None = None
    kept: Literal["launch", "run", "session"] = "launch"
    index: int | None = None
    hidden: bool = False
    device: int | None = None  # that has what is hidden; None for the function's own

    def name_on(self, device: int) -> str:
        return super().name_on(device if self.device is None else self.device)


@attr_def("bm.output")
@dataclass(frozen=True)
class NetOutput(NetValue):
    """A result, which the client reads or hands to the next net."""

    name: str
    tokens: int | None = None
    index: int | None = None
    hidden: bool = False


@attr_def("bm.part")
@dataclass(frozen=True)
class NetPart(Attribute):
    """Which of the functions that do the work of one together this one is; see `dialects.parts`.

    Cores of a device share its memory: its inputs, its outputs and its weights. Each function takes all of
    the net's arguments, and gives those of its results whose numbers `writes` has. A device has memory of its
    own; what its function takes and gives is the device's.
    """

    core: int = 0
    cores: int = 1
    device: int = 0
    devices: int = 1
    step: int = 0  # of a device's functions, which run one after the other
    writes: tuple[int, ...] | None = None  # None for all

    def place(self, over: str) -> tuple[int, int]:
        """Its number among the parts of that kind, and how many there are."""
        return (self.core, self.cores) if over == "core" else (self.device, self.devices)

    def problem(self) -> str | None:
        for number, count in (self.place("core"), self.place("device")):
            if not 0 <= number < count:
                return f"is number {number} of {count} parts"
        ordered = self.writes is None or list(self.writes) == sorted({*self.writes})
        return None if ordered and self.step >= 0 else "has a step below 0, or writes that are not in order"


WHOLE = NetPart()


@attr_def("bm.net")
@dataclass(frozen=True)
class NetAttr(Attribute):
    """A net of a bmodel, or one for each layer.

    `bound` is what its weights belong to: with "layer" their names are relative to a layer, and the nets of
    the file are called `name`_0, `name`_1, ... Linears of a `quantizable` net may be stored in fewer bits
    than their activations have. A client may launch a `flexible` net with smaller shapes of inputs than it
    has, and leaves in the rest what was there.

    A net may have several functions, with the same attribute but for `stage`, that differ in the shapes of
    their inputs, the largest first; a client launches the one that fits. Each may have several in turn, one
    after the other, with the same but for `part`.
    """

    name: str
    bound: Literal["model", "layer"] = "model"
    quantizable: bool = False
    inputs: tuple[NetInput, ...] = ()
    outputs: tuple[NetOutput, ...] = ()
    flexible: bool = False
    stage: int = 0
    part: NetPart = WHOLE
    apart: bool = False  # whether a client keeps something in another of its steps

    @property
    def written(self) -> tuple[NetOutput, ...]:
        """The outputs that the function gives."""
        numbers = self.part.writes
        return self.outputs if numbers is None else tuple(self.outputs[number] for number in numbers)

    @property
    def stage_name(self) -> str:
        """Tells the function of a module from the others."""
        return stage_name(self.name, self.stage)

    @property
    def io_alone(self) -> bool:
        """Whether its inputs and outputs are in a memory of their own, as what clients keep there has to be.

        Those of a flexible net cannot, as the runtime has it; see `passes.chip.assign_addresses.set_apart`.
        """
        kept = self.apart or any(each.kept == "session" for each in self.inputs)
        return kept and not self.flexible

    def name_for(self, layer: int | None) -> str:
        """The name in the file of the net that is bound to a layer, or to the model."""
        assert (layer is None) == (self.bound == "model"), f"net {self.name} is bound to a {self.bound}"
        return net_name(self.name, layer)

    def makes(self, name: str) -> bool:
        """Whether a stage that is called so is this one, bound to any layer; see `client_nets.stage_name`."""
        net = name.removesuffix(f".{self.stage}") if self.stage else name
        kind, layer = kind_of(net)
        found = net == self.name if self.bound == "model" else kind == self.name and layer is not None
        return found and name == stage_name(net, self.stage)

    def problem_as_stage(self, place: int, first: NetAttr) -> str | None:
        """What keeps it from being the net's stage of that place."""
        if self.stage != place:
            return f"is stage {self.stage} of net {self.name!r} in the place of stage {place}"
        if replace(self, stage=first.stage, part=first.part) != first:
            return f"is stage {place} of net {self.name!r} and has another {KEY} than its first"
        return None

    def problem(self) -> str | None:
        values = (*self.inputs, *self.outputs)
        names = [each.name_on(self.part.device) if each.hidden else each.name for each in values]
        if repeated := [name for name in names if names.count(name) > 1]:
            return f"has two arguments or results called {repeated[0]!r}"
        if not all((self.name, *names)):
            return "has an empty name"
        if any(number >= len(self.outputs) for number in self.part.writes or ()):
            return f"writes outputs {list(self.part.writes or ())}, and has {len(self.outputs)}"
        if problem := self.part.problem():
            return problem
        if self.bound != "layer" and any(each.kept == "run" for each in self.inputs):
            return "keeps an input for a run over layers, but is bound to none"
        return None

    def problem_of(self, types: FunctionType) -> str | None:
        """What does not fit between this and a function of that type; None when all does."""
        stated, found = (len(self.inputs), len(self.written)), (len(types.inputs), len(types.results))
        if stated != found:
            return "has {} arguments and {} results, its {} names {} and {}".format(*found, KEY, *stated)
        return problem_of_values(self.inputs, types.inputs) or problem_of_values(self.written, types.results)


def problem_of_values(stated: Sequence[NetValue], types: Sequence[Type]) -> str | None:
    """What does not fit between arguments, or results, and their types; there may be fewer results than
    tokens that are given, as where some are merged.
    """
    sizes: dict[str, int] = {}
    for each, type in zip(stated, types, strict=True):
        if problem := each.problem_of(type):
            return problem
        if (size := each.token_count(type)) is not None:
            sizes[each.name] = size
    if len(set(sizes.values())) > 1:
        return f"counts tokens in two ways: {', '.join(f'{k} has {v}' for k, v in sizes.items())}"
    return None


def net_of(function: Function) -> NetAttr:
    """What a function is; CompileError when it does not say."""
    found = function.attributes.get(KEY)
    if not isinstance(found, NetAttr):
        function.fail(f"does not say which net it is: it has no {KEY}")
    return found


def stages_of(functions: Iterable[Function]) -> list[list[Function]]:
    """The functions of each net, by their `stage`; one that does not say its net is by itself."""
    found: dict[object, list[Function]] = {}
    for function in functions:
        net = function.attributes.get(KEY)
        found.setdefault(net.name if isinstance(net, NetAttr) else function, []).append(function)
    return list(found.values())


def programs_of(functions: Iterable[Function]) -> list[list[list[Function]]]:
    """Of the functions of one net: those of a step of a device together, and of these each core's stages."""
    steps: dict[tuple[int, int], dict[int, list[Function]]] = {}
    for function in functions:
        net = function.attributes.get(KEY)
        part = net.part if isinstance(net, NetAttr) else WHOLE
        steps.setdefault((part.device, part.step), {}).setdefault(part.core, []).append(function)
    return [[*cores.values()] for cores in steps.values()]


def has_memory_of_its_own(function: Function) -> bool:
    """Whether no other net may work in the memory of its inputs and outputs; without `bm.net` they may."""
    return KEY in function.attributes and net_of(function).io_alone


def token_count(function: Function) -> int:
    """Tokens of a call of a function, as its arguments count them, or else its results; 1 when none does."""
    net = net_of(function)
    inputs = zip(net.inputs, (arg.type for arg in function.args), strict=True)
    outputs = zip(net.written, (value.type for value in function.terminator.operands), strict=True)
    counts = (each.token_count(type) for each, type in chain(inputs, outputs))
    return next((size for size in counts if size is not None), 1)
