"""bmodel_tool.py as its user runs it: what it prints, and its exit codes."""

import hashlib
import json
import os
import zipfile
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from bmodel_tool import main
from compiler.bmodel import write_bmodel
from tests.runtime_sim.check.programs import (
    ADD_TILES,
    add_model,
    changed_model,
    toy_model,
    toy_table,
    toy_tokenizer,
    toy_tokens,
)

pytestmark = pytest.mark.usefixtures("forked_tokenizers")

SHAPE = (ADD_TILES, 64, 48)


@pytest.fixture
def tool(tmp_path, capsys):
    """Write a model, run a command on it; exit code, output and errors."""
    (tmp_path / "out").mkdir(exist_ok=True)

    def call(model, command, *arguments):
        path = tmp_path / "out" / "m.bmodel"
        write_bmodel(path, model)
        code = main([command, str(path), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_info_shows_nets_memory_and_weights(tool):
    code, out, _ = tool(toy_model(), "info")
    assert code == 0
    assert "BM1684X, 7 nets" in out
    assert "weights 640 bytes in 1 blobs" in out
    assert "block_0 .. 1 (2 nets): basic, 1 tiu 12 dma, weights none" in out
    assert "<- old_k bf16[1, 12, 1, 2] at 0x100003000" in out


def test_info_as_json(tool):
    code, out, _ = tool(toy_model(), "info", "--json")
    record = json.loads(out)
    assert code == 0
    assert [net["name"] for net in record["nets"]][:2] == ["embedding", "embedding_cache"]
    assert record["memory"]["blobs"] == 1
    assert record["nets"][4]["stages"][0]["inputs"][0]["shape"] == [1, 1, 8]


def test_disasm_shows_operands_and_waits(tool):
    code, out, _ = tool(add_model(), "disasm", "add")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == ADD_TILES * 4 + 2
    (add,) = (line for line in lines if line.startswith("tiu     2"))
    assert (
        add.split()
        == (
            "tiu 2 after dma 4 ar.add res0 bf16[1, 64, 1, 48]@0x18000 opd0 bf16@0x10000 opd1 bf16@0x14000 tsk_opd_num=2"
        ).split()
    )
    (store,) = (line for line in lines if line.startswith("dma     7"))
    assert "dst [1, 64, 1, 48]@neuron+0xc000" in store


def test_disasm_of_one_engine(tool):
    _, out, _ = tool(add_model(), "disasm", "add", "--engine", "tiu")
    assert {line.split()[0] for line in out.splitlines()} == {"tiu"}


def test_check_of_sound_and_broken_files(tool):
    assert tool(toy_model(), "check")[:2] == (0, "sound: 7 nets, waits proved for 47 instructions\n")
    code, out, _ = tool(changed_model(add_model(), "tiu", 1, cmd_id_dep=0), "check")
    assert code == 1
    assert "nothing orders tiu 1 (ar.add) and dma 1" in out
    assert out.endswith("1 problem\n")


def test_run_writes_outputs(tool, tmp_path):
    rng = np.random.default_rng(0)
    inputs = {name: rng.integers(-8, 8, SHAPE).astype(np.float32) for name in "ab"}
    np.savez(tmp_path / "in.npz", **inputs)
    code, *_ = tool(add_model(), "run", "add", "--input", tmp_path / "in.npz", "--output", tmp_path / "y.npz")
    assert code == 0
    with np.load(tmp_path / "y.npz") as outputs:
        np.testing.assert_array_equal(outputs["y"], inputs["a"] + inputs["b"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(SHAPE)}, "there is no array 'b' (bf16 [4, 64, 48]) among ['a']"),
        ({"a": np.zeros(SHAPE), "b": np.zeros(3)}, "'b' has the shape (3,), b is (4, 64, 48)"),
        (None, "cannot be read as .npz"),
    ],
)
def test_bad_inputs_are_one_line_and_write_nothing(tool, tmp_path, arrays, message):
    (tmp_path / "in.npz").write_text("no")
    if arrays:
        np.savez(tmp_path / "in.npz", **arrays)
    code, _, err = tool(
        add_model(), "run", "add", "--input", tmp_path / "in.npz", "--output", tmp_path / "y.npz"
    )
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "y.npz").exists()


def test_diff(tool, tmp_path):
    write_bmodel(tmp_path / "other.bmodel", changed_model(add_model(), "tiu", 2, cmd_id_dep=3))
    code, out, _ = tool(add_model(), "diff", tmp_path / "other.bmodel")
    assert (code, out) == (1, "net add: tiu 2: ar.add cmd_id_dep 4 | 3\n")
    write_bmodel(tmp_path / "other.bmodel", add_model())
    assert tool(add_model(), "diff", tmp_path / "other.bmodel")[0] == 0
    write_bmodel(tmp_path / "other.bmodel", toy_model())
    out = tool(replace(toy_model(), nets=toy_model().nets[1:]), "diff", tmp_path / "other.bmodel")[1]
    assert out == "net embedding: only in the second\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("info", "none.bmodel"), "cannot read none.bmodel: No such file or directory"),
        (("check", __file__), "not a bmodel"),
        (("disasm", "{file}", "sub"), "there is no net 'sub'; there are add"),
        (("chat", "{file}", "--prompt", "a"), "is not a language model: it has no net 'block_0'"),
        (("verify", "{file}", "--reference", "/none"), "not a language model"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, command, message):
    write_bmodel(tmp_path / "m.bmodel", add_model())
    code = main([each.format(file=tmp_path / "m.bmodel") for each in command])
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def config(tmp_path):
    """A tokenizer whose token t is the letter number t, beside where `tool` writes the model."""
    folder = tmp_path / "out" / "config"
    folder.mkdir(parents=True, exist_ok=True)
    toy_tokenizer(folder)
    return folder


def letters(tokens):
    return "".join(chr(ord("0") + token) for token in tokens)


@pytest.fixture
def chat_tool(tmp_path, capsys, config):
    def call(model, *arguments):
        write_bmodel(tmp_path / "out" / "m.bmodel", model)
        code = main(["chat", str(tmp_path / "out" / "m.bmodel"), "--prompt", "35", *map(str, arguments)])
        return code, capsys.readouterr()

    return call


def test_chat_streams_the_answer_and_nothing_else(chat_tool):
    code, captured = chat_tool(toy_model(), "--max-tokens", 5)
    assert (code, captured.out, captured.err) == (0, letters(toy_tokens(5, 5)) + "\n", "")


def test_chat_stops_at_the_models_end_token(chat_tool, config):
    tokens = toy_tokens(5, 5)
    (config / "generation_config.json").write_text(json.dumps({"eos_token_id": tokens[3]}))
    assert chat_tool(toy_model())[1].out == letters(tokens[:3]) + "\n"


def test_chat_with_the_embedding_on_disk(chat_tool, config):
    (config / "embedding.bin").write_bytes(toy_table().tobytes())
    model = toy_model()
    model = replace(model, nets=[net for net in model.nets if not net.name.startswith("embedding")])
    assert chat_tool(model, "--max-tokens", 4)[1].out == letters(toy_tokens(5, 4)) + "\n"


def without_embedding(sha256=""):
    model = toy_model()
    nets = [net for net in model.nets if not net.name.startswith("embedding")]
    return replace(model, nets=nets).with_embedding(sha256)


def test_the_embedding_on_disk_belongs_to_its_file(chat_tool, config, capsys):
    table = toy_table().tobytes()
    model = without_embedding(hashlib.sha256(table).hexdigest())
    missing = "embedding.bin is missing: this file was compiled with --embedding_disk"
    foreign = "is not the embedding that this file was compiled with"
    other = "not rows of 16: it is the embedding of another model"
    for content, message in ((None, missing), (table[::-1], foreign), (table[:-3], other), (b"", other)):
        (config / "embedding.bin").unlink(missing_ok=True)
        if content is not None:
            (config / "embedding.bin").write_bytes(content)
        code, captured = chat_tool(model, "--max-tokens", 4)
        assert (code, captured.out) == (2, "")
        assert message in captured.err
        assert main(["check", str(config.parent / "m.bmodel")]) == 1
        assert message in capsys.readouterr().out
    (config / "embedding.bin").write_bytes(table)
    assert chat_tool(model, "--max-tokens", 4)[1].out == letters(toy_tokens(5, 4)) + "\n"
    assert main(["check", str(config.parent / "m.bmodel")]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.array([{}], object)}, "'a.npy' holds pickled objects"),
        ({"a": np.array(["text"])}, "'a' holds <U4"),
        ("npy", "not a zip file"),
        ("bomb", "'a.npy' has fewer bytes than its shape [1099511627776]"),
    ],
    ids=["pickle", "text", "npy", "bomb"],
)
def test_files_that_hold_no_arrays_for_a_net_are_refused(tool, tmp_path, content, message):
    path = tmp_path / "in.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(SHAPE))
    elif content == "bomb":
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
        with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header)
    else:
        arrays = {name: np.broadcast_to(array, SHAPE) for name, array in content.items()}
        np.savez(path, **arrays)
    code, _, err = tool(add_model(), "run", "add", "--input", path, "--output", tmp_path / "y.npz")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_an_output_that_cannot_be_written_is_told_first(tool, tmp_path):
    for output in (tmp_path / "none" / "y.npz", tmp_path):
        code, _, err = tool(add_model(), "run", "add", "--input", tmp_path / "none.npz", "--output", output)
        assert code == 2
        assert f"cannot write {output}: " in err


def test_a_pipe_is_no_bmodel(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert main(["info", str(tmp_path / "pipe")]) == 2
    assert "not a regular file" in capsys.readouterr().err


def test_bf16_outputs_are_widened_without_change():
    from runtime_sim.tool.run import widen

    array = np.array([1.5, -3], ml_dtypes.bfloat16)
    assert widen(array).dtype == np.float32
    np.testing.assert_array_equal(widen(array), array.astype(np.float32))
