"""A process of its own around Sophgo's runtime (libbmrt) and its model of the chip, driven through a pipe.

The libraries crash rather than report, and switch the process's floating-point environment, so they get a
process that may die. Run as `vendor_child.py LIBRARIES BMODEL PIPE`; answers pickled requests from the pipe.
Only the standard library and numpy are needed. Nothing here is shared with the simulator.
"""

import sys
from ctypes import (
    CDLL,
    POINTER,
    RTLD_GLOBAL,
    Structure,
    byref,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_uint32,
    c_uint64,
    c_void_p,
)
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

SHARE_MEM = 1  # the nets of a file share one scratch memory; every client sets it before loading
WIDTHS = {0: 4, 1: 2, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 2}  # data type -> bytes
MASK_WORDS = {8: 0xC61C, 1: 0xF0E2}  # what a client writes for "masked": -9984 in bf16, -10000 in f16


class DeviceMem(Structure):
    _fields_ = (
        ("address", c_uint64),
        ("reserved", c_uint32),
        ("fd", c_int),
        ("flags", c_uint32),
        ("size", c_uint32),
    )


class Shape(Structure):
    _fields_ = (("count", c_int), ("dims", c_int * 8))


class Tensor(Structure):
    _fields_ = (("dtype", c_int), ("shape", Shape), ("mem", DeviceMem), ("st_mode", c_int))


class StageInfo(Structure):
    _fields_ = (
        ("in_shapes", POINTER(Shape)),
        ("out_shapes", POINTER(Shape)),
        ("in_mems", POINTER(DeviceMem)),
        ("out_mems", POINTER(DeviceMem)),
    )


class NetInfo(Structure):
    _fields_ = (
        ("name", c_char_p),
        ("is_dynamic", c_bool),
        ("in_count", c_int),
        ("in_names", POINTER(c_char_p)),
        ("in_dtypes", POINTER(c_int)),
        ("in_scales", POINTER(c_float)),
        ("out_count", c_int),
        ("out_names", POINTER(c_char_p)),
        ("out_dtypes", POINTER(c_int)),
        ("out_scales", POINTER(c_float)),
        ("stage_count", c_int),
        ("stages", POINTER(StageInfo)),
    )


class Runtime:
    """One bmodel loaded as a client loads it."""

    def __init__(self, libraries: Path, bmodel: str) -> None:
        self.bmlib = CDLL(str(libraries / "libbmlib.so.0"), RTLD_GLOBAL)
        self.bmrt = CDLL(str(libraries / "libbmrt.so"), RTLD_GLOBAL)
        self.handle, self.runtime = c_void_p(), c_void_p()
        self._declare()
        self.check(self.bmlib.bm_dev_request(byref(self.handle), 0), "bm_dev_request")
        self.runtime = c_void_p(self.bmrt.bmrt_create(self.handle))
        self.bmrt.bmrt_set_flags(self.runtime, SHARE_MEM)
        if not self.bmrt.bmrt_load_bmodel(self.runtime, bmodel.encode()):
            raise RuntimeError("bmrt_load_bmodel refused the file")

    def _declare(self) -> None:
        self.bmrt.bmrt_create.restype = c_void_p
        self.bmrt.bmrt_load_bmodel.restype = c_bool
        self.bmrt.bmrt_get_network_info.restype = POINTER(NetInfo)
        self.bmrt.bmrt_launch_tensor_ex.restype = c_bool
        tensors = [POINTER(Tensor), c_int]
        self.bmrt.bmrt_launch_tensor_ex.argtypes = [c_void_p, c_char_p, *tensors, *tensors, c_bool, c_bool]
        self.bmlib.bm_memcpy_s2d.argtypes = [c_void_p, DeviceMem, c_void_p]
        self.bmlib.bm_memcpy_d2s.argtypes = [c_void_p, c_void_p, DeviceMem]
        self.bmlib.bm_malloc_device_byte.argtypes = [c_void_p, POINTER(DeviceMem), c_uint32]
        self.bmlib.bm_free_device.argtypes = [c_void_p, DeviceMem]
        self.bmlib.bm_free_device.restype = None

    @staticmethod
    def check(status: int, what: str) -> None:
        if status:
            raise RuntimeError(f"{what} failed with status {status}")

    def close(self) -> None:
        self.bmrt.bmrt_destroy(self.runtime)
        self.bmlib.bm_dev_free(self.handle)

    def net(self, name: str, stage: int = 0) -> "Net | None":
        info = self.bmrt.bmrt_get_network_info(self.runtime, name.encode())
        return Net(name, info.contents, stage) if info else None

    def stage_count(self, name: str) -> int:
        return self.bmrt.bmrt_get_network_info(self.runtime, name.encode()).contents.stage_count

    def write(self, mem: DeviceMem, data: bytes) -> None:
        part = part_of(mem, 0, len(data))
        self.check(self.bmlib.bm_memcpy_s2d(self.handle, part, data), "bm_memcpy_s2d")

    def read(self, mem: DeviceMem) -> bytes:
        data = bytearray(mem.size)
        target = (c_uint32 * 0).from_buffer(data)
        self.check(self.bmlib.bm_memcpy_d2s(self.handle, byref(target), mem), "bm_memcpy_d2s")
        return bytes(data)

    def copy(
        self, target: DeviceMem, target_start: int, source: DeviceMem, source_start: int, size: int
    ) -> None:
        """Through the host: bm_memcpy_d2d_byte launches a kernel, which the C-model of BM1688 aborts in."""
        self.write(part_of(target, target_start, size), self.read(part_of(source, source_start, size)))

    def launch(self, net: "Net", inputs: list[DeviceMem], outputs: list[DeviceMem]) -> None:
        tensors_in = net.tensors(net.inputs, inputs)
        tensors_out = net.tensors(net.outputs, outputs)
        name, counts = net.name.encode(), (len(inputs), len(outputs))
        ok = self.bmrt.bmrt_launch_tensor_ex(
            self.runtime, name, tensors_in, counts[0], tensors_out, counts[1], True, False
        )
        if not ok:
            raise RuntimeError(f"launching {net.name} failed")
        self.check(self.bmlib.bm_thread_sync(self.handle), "bm_thread_sync")

    def run(self, name: str, stage: int, inputs: list[bytes]) -> list[bytes]:
        """Launch with buffers which are not the net's own, of the shapes of a stage."""
        net = self.net(name, stage)
        mems = [self._malloc(part.mem.size) for part in net.inputs + net.outputs]
        inputs_at, outputs_at = mems[: len(net.inputs)], mems[len(net.inputs) :]
        for mem, data in zip(inputs_at, inputs, strict=True):
            self.write(mem, data)
        self.launch(net, inputs_at, outputs_at)
        results = [self.read(mem) for mem in outputs_at]
        for mem in mems:
            self.bmlib.bm_free_device(self.handle, mem)
        return results

    def _malloc(self, size: int) -> DeviceMem:
        mem = DeviceMem()
        self.check(self.bmlib.bm_malloc_device_byte(self.handle, byref(mem), size), "bm_malloc_device_byte")
        return mem


def part_of(mem: DeviceMem, start: int, size: int) -> DeviceMem:
    if start + size > mem.size:
        raise ValueError(f"bytes {start} to {start + size} of a memory of {mem.size}")
    return DeviceMem(mem.address + start, mem.reserved, mem.fd, mem.flags, size)


class Part:
    """An input or output of a stage of a net, with the buffer that the runtime made for it."""

    def __init__(self, dtype: int, shape: Shape, mem: DeviceMem) -> None:
        self.dtype = dtype
        self.shape = Shape(shape.count, shape.dims)
        self.dims = tuple(shape.dims[: shape.count])
        self.mem = DeviceMem(mem.address, mem.reserved, mem.fd, mem.flags, self.bytes)

    @property
    def bytes(self) -> int:
        return int(np.prod(self.dims)) * WIDTHS[self.dtype]


class Net:
    def __init__(self, name: str, info: NetInfo, index: int) -> None:
        self.name = name
        stage = info.stages[index]
        self.inputs = [
            Part(info.in_dtypes[i], stage.in_shapes[i], stage.in_mems[i]) for i in range(info.in_count)
        ]
        self.outputs = [
            Part(info.out_dtypes[i], stage.out_shapes[i], stage.out_mems[i]) for i in range(info.out_count)
        ]

    def tensors(self, parts: list[Part], mems: list[DeviceMem]) -> "list[Tensor]":
        pairs = zip(parts, mems, strict=True)
        return (Tensor * len(parts))(*(Tensor(part.dtype, part.shape, mem, 0) for part, mem in pairs))

    def mems(self) -> tuple[list[DeviceMem], list[DeviceMem]]:
        return [part.mem for part in self.inputs], [part.mem for part in self.outputs]


class Client:
    """Greedy generation, as the vendor's own chat programs drive a text model."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.embedding, self.embedding_cache = runtime.net("embedding"), runtime.net("embedding_cache")
        self.lm_head, self.greedy_head = runtime.net("lm_head"), runtime.net("greedy_head")
        self.blocks = []
        while (block := runtime.net(f"block_{len(self.blocks)}")) is not None:
            self.blocks.append(block)
        names = [f"block_cache_{layer}" for layer in range(len(self.blocks))]
        self.stages = [
            [runtime.net(name, stage) for name in names] for stage in range(runtime.stage_count(names[0]))
        ]
        self.caches = self.stages[0]
        self.prefill_rows = self.embedding.inputs[0].dims[1]
        self.hidden_bytes = self.caches[0].outputs[0].bytes
        self.row_bytes = self.caches[0].outputs[1].bytes
        self.masked = MASK_WORDS[self.embedding_cache.outputs[0].dtype]
        self.history = [(net.inputs[3].mem, net.inputs[4].mem) for net in self.caches]
        self.launched: list[int] = []  # stages of the decode steps so far

    def generate(self, prompt: list[int], count: int) -> tuple[list[int], list[bytes], list[int]]:
        """`count` tokens, the hidden state that each of them was chosen from, and the stages of the steps."""
        self.launched.clear()
        tokens, states = [], []
        for step in range(count):
            state = self.decode(tokens[-1], len(prompt) + step) if step else self.prefill(prompt)
            states.append(self.rt.read(state))
            tokens.append(self.head(state))
        return tokens, states, self.launched

    def sample(self, prompt: list[int], count: int, numbers: list[bytes]) -> list[bytes]:
        """What sample_head makes of the logits behind the last of `count` greedy tokens.

        `numbers` are its last inputs, written once before all else; as many ids are given as there are.
        """
        head = self.rt.net("sample_head")
        inputs, outputs = head.mems()
        for mem, data in zip(inputs[1:], [bytes(inputs[1].size), *numbers], strict=True):
            self.rt.write(mem, data)
        tokens, *_ = self.generate(prompt, count)
        seen = np.array([*prompt, *tokens[:-1]], np.int32)
        self.rt.write(inputs[1], seen.tobytes())
        head.inputs[1].shape.dims[1] = len(seen)
        logits = self.lm_head.outputs[0].mem
        self.rt.copy(inputs[0], 0, logits, 0, logits.size)
        self.rt.launch(head, inputs, outputs)
        return [self.rt.read(mem) for mem in outputs]

    def prefill(self, prompt: list[int]) -> DeviceMem:
        rt, rows, count = self.rt, self.prefill_rows, len(prompt)
        ids = np.zeros(rows, np.int32)
        ids[:count] = prompt
        (ids_at,), (embedded,) = self.embedding.mems()
        rt.write(ids_at, ids.tobytes())
        rt.launch(self.embedding, [ids_at], [embedded])
        state = rt.read(embedded)
        for part in self.blocks[0].inputs + self.blocks[0].outputs:
            rt.write(part.mem, bytes(part.bytes))
        for layer, block in enumerate(self.blocks):
            inputs, outputs = block.mems()
            rt.write(inputs[0], state[: count * self.hidden_bytes])
            if layer == 0:
                rt.write(inputs[1], self.positions(count, rows))
                rt.write(inputs[2], self.causal_mask(count, rows))
            rt.launch(block, inputs, outputs)
            for history, rows_at in zip(self.history[layer], outputs[1:], strict=True):
                rt.copy(history, 0, rows_at, 0, count * self.row_bytes)
            state = rt.read(outputs[0])
        return part_of(outputs[0], (count - 1) * self.hidden_bytes, self.hidden_bytes)

    def positions(self, count: int, rows: int) -> bytes:
        """Of text: the same in each stream."""
        positions = np.zeros((self.streams, rows), np.int32)
        positions[:, :count] = np.arange(count)
        return positions.tobytes()

    @property
    def streams(self) -> int:
        return int(self.blocks[0].inputs[1].dims[0])

    def causal_mask(self, count: int, rows: int) -> bytes:
        mask = np.full((rows, rows), self.masked, np.uint16)
        for row in range(count):
            mask[row, : row + 1] = 0
        return mask.tobytes()

    def decode(self, token: int, length: int) -> DeviceMem:
        """`length` counts the tokens so far, the one fed now included; the shortest stage for it is launched."""
        rt, row = self.rt, (length - 1) * self.row_bytes
        lengths = [caches[0].inputs[3].dims[1] for caches in self.stages]
        stage = max(index for index, rows in enumerate(lengths) if rows >= length)
        self.launched.append(stage)
        caches, history_rows = self.stages[stage], lengths[stage]
        (token_at,), (state,) = self.embedding_cache.mems()
        rt.write(token_at, np.int32(token).tobytes())
        rt.launch(self.embedding_cache, [token_at], [state])
        first = caches[0].inputs
        rt.write(first[1].mem, np.full(self.streams, length - 1, np.int32).tobytes())
        mask = np.zeros(history_rows + 1, np.uint16)
        mask[length - 1 : history_rows] = self.masked
        rt.write(first[2].mem, mask.tobytes())
        for cache, (keys, values) in zip(caches, self.history, strict=True):
            inputs = [state, first[1].mem, first[2].mem, *(part.mem for part in cache.inputs[3:])]
            rows_at = [part_of(keys, row, self.row_bytes), part_of(values, row, self.row_bytes)]
            outputs = [cache.outputs[0].mem, *rows_at]
            rt.launch(cache, inputs, outputs)
            state = outputs[0]
        return state

    def head(self, state: DeviceMem) -> int:
        _, outputs = self.lm_head.mems()
        self.rt.launch(self.lm_head, [state], outputs)
        if self.lm_head.outputs[0].dims[1] != 1:
            (logits,), choice = self.greedy_head.mems()
            self.rt.copy(logits, 0, outputs[0], 0, outputs[0].size)
            self.rt.launch(self.greedy_head, [logits], choice)
            outputs = choice
        return int(np.frombuffer(self.rt.read(outputs[0]), np.int32)[0])


def serve(libraries: str, bmodel: str, pipe: Connection) -> None:
    runtime = Runtime(Path(libraries), bmodel)
    pipe.send("loaded")
    client = None
    while request := pipe.recv():
        what, *arguments = request
        if what == "run":
            pipe.send(runtime.run(*arguments))
        else:
            client = client or Client(runtime)
            pipe.send(getattr(client, what)(*arguments))
    runtime.close()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Connection(int(sys.argv[3])))
