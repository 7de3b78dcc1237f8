"""Rules that chat programs rely on, for files that hold a language model (known by the net `block_0`).

They find nets by name, inputs and outputs by index, sizes in the shapes, and let nets share memory in ways
that bind the addresses of one net to those of another. Source: Sophgo's LLM-TPU programs, C++ and Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt

from compiler.bmodel import AddrMode, BModel, Net, Stage, TensorInfo
from compiler.bmodel.cascade import main_nets
from compiler.client_nets import (
    BLOCK,
    BLOCK_CACHE,
    CHOICES,
    EMBEDDING,
    EMBEDDING_CACHE,
    GREEDY_HEAD,
    LAYER_NETS,
    LOOK_UPS,
    NEEDED,
    ON_FIRST_DEVICE,
    SAMPLE_HEAD,
    VIT,
    kind_of,
    layer_count,
)
from runtime_sim.check.cascades import device_view
from runtime_sim.launch.grids import STREAMS
from runtime_sim.launch.loader import Program, stage_names
from runtime_sim.launch.tower import GRID_RANK, WINDOWED

Signature = Sequence[tuple[str, tuple[int, ...]]]  # data type and shape of each input or output

MOST_CANDIDATES = 50
ACTIVATIONS = ("bf16", "f16")  # element types of states, masks and caches

_BLOCK, _CACHE, _HEAD = NEEDED


def model_problems(program: Program) -> Iterator[str]:
    bmodel = device_view(program.bmodel, 0)
    if not bmodel.has_net(_BLOCK):
        return
    yield from _name_problems(bmodel)
    if not all(map(bmodel.has_net, NEEDED)):
        return
    yield from shape_problems(program.bmodel)
    if bmodel is program.bmodel:
        yield from _address_problems(bmodel)
    else:
        yield from _device_problems(program.bmodel)
        for device in range(bmodel.device_num):
            yield from _copy_problems(device_view(program.bmodel, device), device)


def shape_problems(bmodel: BModel) -> Iterator[str]:
    """What a session cannot do without: inputs and outputs of the right kind, where clients look for them.

    Each device's are as those of a file for one, with fewer heads.
    """
    for device in range(bmodel.device_num):
        of_device = f" (device {device})" if device else ""
        for problem in _view_problems(device_view(bmodel, device)):
            yield problem + of_device


def _view_problems(bmodel: BModel) -> Iterator[str]:
    for name in NEEDED:
        if not bmodel.has_net(name):
            yield f"it has no net '{name}'"
            return
    yield from _mode_problems(bmodel)
    yield from _shape_problems(bmodel)
    yield from _stage_problems(bmodel)
    yield from _head_problems(bmodel)
    if bmodel.has_net(VIT):
        yield from _tower_problems(bmodel)


def _name_problems(bmodel: BModel) -> Iterator[str]:
    layers = layer_count(bmodel.has_net)
    tables = [name for name in LOOK_UPS if bmodel.has_net(name)]
    if len(tables) == 1:
        yield f"it has {tables[0]} and not {' or '.join(set(LOOK_UPS) - set(tables))}"
    if not bmodel.has_net(_HEAD):
        yield f"it has no {_HEAD}"
    for net in bmodel.nets:
        kind, layer = kind_of(net.name)
        if kind not in ((VIT, *LOOK_UPS, _HEAD, *CHOICES) if layer is None else LAYER_NETS):
            yield f"net {net.name} is none that a client knows, and clients count layers by counting nets"
        elif layer is not None and layer >= layers:
            yield f"net {net.name} is beyond the {layers} layers that have both of their nets"


def _mode_problems(bmodel: BModel) -> Iterator[str]:
    """Only memory of its own keeps a cache, or how to choose, from one launch to the next."""
    for net in bmodel.nets:
        kind, _ = kind_of(net.name)
        if kind == SAMPLE_HEAD and net.addr_mode is AddrMode.BASIC:
            yield from _room_problems(net, bmodel)
            continue
        wanted = AddrMode.IO_ALONE if kind in (BLOCK_CACHE, *CHOICES) else AddrMode.BASIC
        if net.addr_mode is not wanted:
            yield f"net {net.name} has addr_mode {net.addr_mode.name}, clients need {wanted.name}"


def _room_problems(net: Net, bmodel: BModel) -> Iterator[str]:
    """In memory that all nets share, what a client leaves there is behind what the others work in."""
    stage = net.stages[0]
    first = min(tensor.address for tensor in [*stage.inputs, *stage.outputs]) - stage.ctx_address
    for other in bmodel.nets:
        if other is not net and first < max(each.ctx_size for each in other.stages):
            yield f"net {other.name} works where clients keep the inputs of {net.name}"
            return
    if not stage.is_dynamic:
        yield f"net {net.name} takes only as many tokens as it has room for, clients give it fewer"


def _shape_problems(bmodel: BModel) -> Iterator[str]:
    """Clients use the first stage of a net alone, but for decode."""
    for net in bmodel.nets:
        kind, _ = kind_of(net.name)
        for name, stage in zip(stage_names(net), net.stages, strict=True):
            is_step = kind == BLOCK_CACHE
            history = _history(stage if is_step else bmodel.net(_CACHE).stages[0])
            signature = _signatures(bmodel, history).get(kind)
            if signature and (is_step or name == net.name):
                yield from _signature_problems(name, stage, signature)


def _signature_problems(name: str, stage: Stage, signature: tuple[Signature, Signature]) -> Iterator[str]:
    for what, tensors, wanted in zip(
        ("inputs", "outputs"), (stage.inputs, stage.outputs), signature, strict=True
    ):
        found = [(tensor.dtype, tensor.shape) for tensor in tensors]
        if found != list(wanted) or any(0 in shape for _, shape in found):
            yield f"net {name} has the {what} {_text(found)}, clients need {_text(wanted)}"


def _stage_problems(bmodel: BModel) -> Iterator[str]:
    """Clients look for the last stage that is large enough in the first layer, and take it in all layers."""
    first = _histories(bmodel.net(_CACHE))
    if first != sorted(set(first), reverse=True):
        yield f"the stages of net {_CACHE} hold {_count(first)} tokens, clients need the largest first"
    for net in bmodel.nets:
        if kind_of(net.name)[0] == BLOCK_CACHE and (found := _histories(net)) != first:
            ours, theirs = _count(found), _count(first)
            yield f"the stages of net {net.name} hold {ours} tokens, those of {_CACHE} {theirs}"


def _tower_problems(bmodel: BModel) -> Iterator[str]:
    """Clients know by the two numbers of rows how many patches, a square of them, make a token."""
    inputs, outputs = (bmodel.net(VIT).stages[0].inputs, bmodel.net(VIT).stages[0].outputs)
    (patches, _), (tokens, _) = _dims(inputs, 0, GRID_RANK), _dims(outputs, 0, 2)
    if patches and tokens and patches != tokens * isqrt(patches // tokens) ** 2:
        yield f"net {VIT} makes {tokens} tokens of {patches} patches, clients need a square for each"


def _head_problems(bmodel: BModel) -> Iterator[str]:
    """Logits are of use to another net only."""
    if _logits(bmodel) and not bmodel.has_net(GREEDY_HEAD):
        yield f"its {_HEAD} gives logits, and there is no {GREEDY_HEAD} to choose among them"


def _text(signature: Signature) -> str:
    return ", ".join(f"{dtype}{list(shape)}" for dtype, shape in signature)


def _histories(net: Net) -> list[int]:
    return [_history(stage) for stage in net.stages]


def _history(stage: Stage) -> int:
    """Tokens that a stage of decode has keys and values of."""
    return _dims(stage.inputs, 3, 4)[1]


def _count(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _signatures(bmodel: BModel, history: int) -> dict[str, tuple[Signature, Signature]]:
    """Inputs and outputs of each kind of net, from the sizes of block_0 and block_cache_0, for a history."""
    block, cache = bmodel.net(_BLOCK).stages[0], bmodel.net(_CACHE).stages[0]
    rows, hidden = _dims(block.inputs, 0, 3)[1:]
    heads, head_dim = _dims(cache.inputs, 3, 4)[2:]
    act = cache.outputs[0].dtype if cache.outputs else "bf16"
    act = act if act in ACTIVATIONS else "bf16"
    row = (act, (1, 1, heads, head_dim))
    caches = (act, (1, history, heads, head_dim))
    states, keys = (act, (1, rows, hidden)), (act, (1, rows, heads, head_dim))
    state, mask = (act, (1, 1, hidden)), (act, (1, 1, 1, history + 1))
    token, logits, number = ("i32", (1, 1)), _logits(bmodel), ("f32", (1,))
    candidates, streams = _candidates(bmodel), _streams(bmodel)
    settings = [("i32", (1, history)), number, number, ("i32", (1,)), number]
    return {
        EMBEDDING: ([("i32", (1, rows))], [states]),
        EMBEDDING_CACHE: ([("i32", (1, 1))], [state]),
        BLOCK: ([states, ("i32", (streams, rows)), (act, (1, 1, rows, rows))], [states, keys, keys]),
        BLOCK_CACHE: ([state, ("i32", (streams, 1)), mask, caches, caches], [state, row, row]),
        _HEAD: ([(act, (1, hidden))], [logits or token]),
        GREEDY_HEAD: ([logits or token], [token]),
        SAMPLE_HEAD: ([logits or token, *settings], [("f32", candidates), ("i32", candidates)]),
        VIT: _tower_signature(bmodel, act, hidden),
    }


def _streams(bmodel: BModel) -> int:
    """Positions of each token: one, or of what pictures have too as many as they need."""
    return STREAMS if _dims(bmodel.net(_BLOCK).stages[0].inputs, 1, 2)[0] == STREAMS else 1


def _tower_signature(bmodel: BModel, act: str, hidden: int) -> tuple[Signature, Signature]:
    """Patches in rows with all that a client says of them, or one image; what stands for it in a prompt."""
    stage = bmodel.net(VIT).stages[0] if bmodel.has_net(VIT) else None
    inputs, outputs = (stage.inputs, stage.outputs) if stage else ((), ())
    given = [(act, (_dims(outputs, 0, 2)[0], hidden))]
    if inputs and len(inputs[0].shape) != GRID_RANK:
        channels, rows, columns = _dims(inputs, 0, 4)[1:]
        return [("f32", (1, channels, rows, columns))], given
    patches, values = _dims(inputs, 0, 2)
    mask: Signature = [("f32", (1, 1, patches, patches))]
    places: Signature = [("f32", (patches, values)), ("i32", (patches, 2))]
    windows: Signature = [*mask, ("i32", _dims(outputs, 0, 2)[:1])] if len(inputs) == WINDOWED else []
    return [*places, *mask, *windows], given


def _candidates(bmodel: BModel) -> tuple[int, ...]:
    """As many as the file chooses to have; clients have room for 50."""
    outputs = bmodel.net(SAMPLE_HEAD).stages[0].outputs if bmodel.has_net(SAMPLE_HEAD) else ()
    return 1, min(_dims(outputs, 0, 2)[1], MOST_CANDIDATES)


def _logits(bmodel: BModel) -> tuple[str, tuple[int, ...]] | None:
    """What the head gives if not one token: a number for each. Clients go by the size alone."""
    vocabulary = _dims(bmodel.net(_HEAD).stages[0].outputs, 0, 2)[1]
    return ("f32", (1, vocabulary)) if vocabulary > 1 else None


def _dims(tensors: Sequence[TensorInfo], index: int, rank: int) -> tuple[int, ...]:
    """The shape of a tensor, zeros when there is none of that rank."""
    shape = tensors[index].shape if index < len(tensors) else ()
    return shape if len(shape) == rank else (0,) * rank


def _address_problems(bmodel: BModel) -> Iterator[str]:
    """Layers after the first read positions and mask where the client wrote them for the first."""
    blocks = [net for net in bmodel.nets if kind_of(net.name)[0] == BLOCK]
    first = _offsets(bmodel.net(_BLOCK))
    for net in blocks:
        if _offsets(net) != first:
            yield f"net {net.name} has its inputs and outputs elsewhere in the shared memory than {_BLOCK}"
    for net in bmodel.nets:
        if kind_of(net.name)[0] == BLOCK_CACHE:
            yield from _history_problems(net)
    if bmodel.has_net(EMBEDDING):
        source, target = bmodel.net(EMBEDDING).stages[0], bmodel.net(_BLOCK).stages[0]
        yield from _handover_problems(source, target)


def _device_problems(bmodel: BModel) -> Iterator[str]:
    """Clients give and take on all devices; what comes out of the head, on the first only."""
    for main in main_nets(bmodel.nets):
        wanted = {0} if main.name in ON_FIRST_DEVICE else {*range(bmodel.device_num)}
        for what, parts in (("inputs", main.inputs), ("outputs", main.outputs)):
            found = {part.net.device for part in parts}
            if main.is_cascade and found != wanted:
                text = f"of the devices {sorted(found)}, clients need {sorted(wanted)}"
                yield f"net {main.name} has {what} {text}"


def _copy_problems(bmodel: BModel, device: int) -> Iterator[str]:
    """On each of several devices states stay where block_0 gives them: all nets of prompts get theirs from
    there and leave theirs there, by copies within a memory that they share.
    """
    kept = bmodel.net(_BLOCK).stages[0].outputs[0]
    for net in bmodel.nets:
        if kind_of(net.name)[0] not in (BLOCK, EMBEDDING):
            continue
        stage = net.stages[0]
        for tensor in (*stage.inputs[:1], *stage.outputs[:1]):
            if tensor.dtype in ACTIVATIONS and 0 < abs(tensor.address - kept.address) < kept.size:
                where = f"in part where {_BLOCK} gives states (device {device})"
                yield f"net {net.name} has {tensor.name} {where}"


def _offsets(net: Net) -> list[int]:
    stage = net.stages[0]
    return [tensor.address - stage.ctx_address for tensor in [*stage.inputs, *stage.outputs]]


def _history_problems(net: Net) -> Iterator[str]:
    """Clients write keys and values where the first stage has its history, and the others read them there."""
    first, *_ = net.stages
    kept = [_own_place(first, tensor) for tensor in first.inputs[3:5]]
    for name, stage in zip(stage_names(net)[1:], net.stages[1:], strict=True):
        starts = [_own_place(stage, tensor).start for tensor in stage.inputs[3:5]]
        if starts != [rows.start for rows in kept]:
            yield f"net {name} has its history elsewhere than {net.name}"
        for tensor in (*stage.inputs[:3], *stage.outputs):
            place = _own_place(stage, tensor)
            if any(place.start < rows.stop and rows.start < place.stop for rows in kept):
                yield f"net {name} has {tensor.name} where {net.name} has its history"


def _own_place(stage: Stage, tensor: TensorInfo) -> range:
    """Its bytes in the net's own memory."""
    start = tensor.address - stage.io_address
    return range(start, start + tensor.size)


def _handover_problems(source: Stage, target: Stage) -> Iterator[str]:
    """Some clients copy embedding's output straight to block_0's input, which a partial overlap may break."""
    given, taken = source.outputs[0], target.inputs[0]
    distance = abs((given.address - source.ctx_address) - (taken.address - target.ctx_address))
    if 0 < distance < min(given.size, taken.size):
        yield f"{EMBEDDING}'s output and {_BLOCK}'s input 0 overlap in part"
