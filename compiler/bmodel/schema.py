"""The tables of a bmodel's flatbuffer, and the few constants of the file around it.

A bmodel is a 64-byte header, a flatbuffer that describes the nets, and a section of raw bytes which the
flatbuffer points into. Everything is little endian. Source: the schema of Sophgo's open runtime repository
(tpu-runtime, `model.fbs`), checked against files made by tpu_mlir 1.30.2.
"""

MAGIC = 0xFF55AAEE
HEADER_BYTES = 64
PAGE_BYTES = 4096  # devices map the file, so everything starts on a page of it

# Numbers of `Tensor.data_type`; the engines use another code of their own.
DATA_TYPES = ("f32", "f16", "i8", "ui8", "i16", "ui16", "i32", "ui32", "bf16", "i4", "ui4")
DATA_TYPE_BITS = {name: int(name.lstrip("bfiu")) for name in DATA_TYPES}

HIDDEN_INTERNAL, HIDDEN_INPUT, HIDDEN_OUTPUT = 0, 1, 2  # `Tensor.hidden`
MEM_TYPE_DEVICE = 1  # `Tensor.mem_type`

# table -> field -> (number of the field, kind). A kind is a scalar, "str", "bytes", "Binary" (struct of start
# and size in the section of raw bytes), another table, or a vector of those in brackets. Fields which
# neither an emitter nor an inspector needs are left out; a reader skips them.
TABLES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "type": (0, "str"),
        "version": (1, "str"),
        "time": (2, "str"),
        "chip": (3, "str"),
        "net": (4, "[Net]"),
        "neuron_size": (5, "u64"),
        "device_num": (7, "u32"),
        "bmodel_type": (9, "u32"),
    },
    "Net": {
        "name": (0, "str"),
        "parameter": (3, "[NetParameter]"),
        "cascade": (4, "Cascade"),
        "addr_mode": (5, "i32"),
    },
    "NetParameter": {
        "input_tensor": (0, "[Tensor]"),
        "output_tensor": (1, "[Tensor]"),
        "ctx_addr": (2, "u64"),
        "ctx_size": (3, "u64"),
        "coeff_mem": (4, "CoeffMem"),
        "is_dynamic": (5, "i32"),
        "cmd_group": (8, "[CmdGroup]"),
        "sub_net": (12, "[SubNet]"),
        "ctx_sizes": (14, "[u64]"),
        "core_num": (16, "u32"),
        "io_addr": (17, "u64"),
        "io_size": (18, "u64"),
    },
    "SubNet": {
        "subnet_mode": (0, "i32"),
        "cmd_group": (1, "[CmdGroup]"),
        "input_tensor": (3, "[Tensor]"),
        "output_tensor": (4, "[Tensor]"),
        "is_dynamic": (5, "i32"),
        "id": (10, "i32"),
        "next_subnet_ids": (11, "[i32]"),
        "core_commands": (14, "[CoreCommands]"),
        "run_core": (15, "u32"),
    },
    "CoreCommands": {
        "gdma_tiu_commands": (0, "[CmdGroup]"),
    },
    "CmdGroup": {
        "bdc_num": (0, "u32"),
        "gdma_num": (1, "u32"),
        "binary_bdc": (2, "Binary"),
        "binary_gdma": (3, "Binary"),
        "bdc_cmd_byte": (4, "u32"),
        "gdma_cmd_byte": (5, "u32"),
    },
    "CoeffMem": {
        "address": (0, "u64"),
        "check_code": (1, "bytes"),
        "binary_coeff": (2, "Binary"),
        "location": (3, "[Location]"),
        "encrypt_mode": (4, "i32"),
    },
    "Location": {
        "name": (0, "str"),
        "offset": (1, "u64"),
        "size": (2, "u64"),
    },
    "Tensor": {
        "name": (0, "str"),
        "data_type": (1, "u32"),
        "gmem_stmode": (2, "i32"),
        "device_addr": (3, "u64"),
        "size": (4, "u64"),
        "shape": (5, "[Shape]"),
        "mem_type": (6, "u32"),
        "scale": (7, "f32"),
        "hidden": (11, "i32"),
        "index": (12, "i32"),
    },
    "Shape": {
        "dim": (0, "[u64]"),
    },
    "Cascade": {
        "device_id": (0, "u32"),
        "step": (1, "u32"),
        "main_name": (2, "str"),
    },
}

# Defaults that are not zero, empty or absent; a flatbuffer leaves out fields equal to their default.
DEFAULTS: dict[tuple[str, str], int | float] = {("SubNet", "id"): -1, ("Tensor", "scale"): 1.0}
