"""What is refused before a model is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.diagnostics import UserError
from driver.options import MODES, ConvertOptions


def options(folder: Path, **changes: Any) -> ConvertOptions:
    defaults = {
        "model_path": folder / "model",
        "seq_length": 512,
        "quantize": "w4bf16",
        "out_dir": folder / "out",
    }
    return ConvertOptions(**defaults | changes)


@pytest.mark.parametrize(
    ("mode", "half", "bits"),
    list(zip(MODES, ["bf16"] * 3 + ["f16"] * 3, [16, 8, 4] * 2, strict=True)),
)
def test_a_mode_names_the_half_type_and_the_bits(tmp_path, mode, half, bits):
    assert (options(tmp_path, quantize=mode).half, options(tmp_path, quantize=mode).weight_bits) == (
        half,
        bits,
    )


def test_defaults_follow_other_values(tmp_path):
    assert options(tmp_path).input_length == 512
    assert options(tmp_path, max_input_length=128).input_length == 128
    assert options(tmp_path, jobs=3).job_count == 3
    assert options(tmp_path).job_count >= 1
    assert options(tmp_path, chip="BM1684X").spec.lanes == 64


@pytest.mark.parametrize(
    ("length", "chunk", "shorter"),
    [
        (256, 0, []),
        (256, 64, [128, 64]),
        (256, 128, [128]),
        (300, 64, [256, 128, 64]),  # what does not divide -s: doubles as far as they are shorter
        (255, 127, [254, 127]),
        (3, 1, [2, 1]),
    ],
)
def test_stages_of_decode_are_doubles_of_the_chunk_below_the_whole(tmp_path, length, chunk, shorter):
    assert options(tmp_path, seq_length=length, chunk_length=chunk).shorter_histories == shorter


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_length": 0}, "-s 0: expected at least two tokens"),
        ({"seq_length": 1}, "-s 1: expected at least two tokens"),
        ({"seq_length": -5}, "-s -5"),
        ({"quantize": "w4"}, "-q w4: expected one of auto, bf16, w8bf16"),
        ({"q_group_size": 0}, "-g 0"),
        ({"chip": "bm1690"}, "unknown chip 'bm1690': known chips are bm1684x"),
        ({"chip": "bm1688", "num_core": 3}, "--num_core 3: bm1688 has 2 cores"),
        ({"chip": "cv186x", "num_core": 2}, "--num_core 2: cv186ah has 1 core"),
        ({"max_input_length": 513}, r"--max_input_length 513: expected 0 \(as -s\) or 2 to 512"),
        ({"max_input_length": 1}, "--max_input_length 1: expected"),
        ({"max_input_length": -1}, "--max_input_length -1"),
        ({"chunk_length": 257}, r"--chunk_length 257: expected 0 \(one stage\) or 1 to 256, half of -s"),
        ({"chunk_length": -1}, "--chunk_length -1: expected"),
        ({"num_core": 2}, "--num_core 2: bm1684x has 1 core"),
        ({"num_device": 9}, "--num_device 9: expected 1 to 8"),
        ({"num_device": 0}, "--num_device 0"),
        ({"num_device": 2, "chunk_length": 64}, "--num_device 2: leave out --chunk_length, which is for one"),
        ({"num_device": 2, "do_sample": True}, "--num_device 2: leave out --do_sample"),
        ({"num_device": 2, "passes": "canonicalize"}, "--num_device 2: leave out --passes"),
        ({"num_device": 2, "resume_ir": [Path("x")]}, "--num_device 2: leave out --resume-ir"),
        ({"jobs": -1}, "--jobs -1"),
        ({"jobs": 10**9}, "--jobs 1000000000: expected 1 to 1024 threads, or 0 for one per CPU"),
        ({"q_group_size": -1}, "-g -1"),
        ({"calibrate": "best"}, "--calibrate best: expected one of auto, none, search, gptq"),
        (
            {"calibrate": "none", "calibration_text": Path("text")},
            "--calibration_text has no use with --calibrate none",
        ),
        ({"bits": 5.0, "size": 10**9}, "--size and --bits: give one of them"),
        ({"bits": float("nan")}, "--bits nan: expected 4 to 16"),
        ({"bits": 5.0, "dry_run": True}, "--bits 5: leave out --dry_run"),
        ({"size": 10**9, "passes": "canonicalize"}, "--size: leave out --passes"),
        ({"lm_head_quantize": 6}, "--lm_head_quantize 6: expected 16, 8 or 4 bits"),
        ({"keep": ["lm_head"]}, "--keep 'lm_head': expected PATTERN=BITS"),
        ({"keep": ["lm_head=8"], "passes": "canonicalize"}, "--keep lm_head=8 is for the default passes"),
        ({"lm_head_quantize": 8, "passes": "canonicalize"}, "--lm_head_quantize 8 is for the default passes"),
    ],
)
def test_impossible_values_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        options(tmp_path, **changes)


@pytest.mark.parametrize("flag", ["out_dir", "dump_ir"])
@pytest.mark.parametrize("inside", ["model", "model/out", "other/../model/a/b", "link/out"])
def test_outputs_inside_the_checkpoint_are_refused(tmp_path, flag, inside):
    for name in ("model", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with pytest.raises(UserError, match="writes into the checkpoint"):
        options(tmp_path, **{flag: tmp_path / inside})


def test_an_output_whose_config_folder_is_the_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="writes into the checkpoint"):
        options(tmp_path, model_path=tmp_path / "out" / "config")


def test_a_folder_that_only_begins_like_the_checkpoint_is_fine(tmp_path):
    options(tmp_path, out_dir=tmp_path / "model_out")


def test_a_dump_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--dump-ir .*/file/ir: .*/file is a file"):
        options(tmp_path, dump_ir=tmp_path / "file" / "ir")
    with pytest.raises(UserError, match=r"--dump-ir .*/ir: File name too long"):
        options(tmp_path, dump_ir=tmp_path / ("i" * 300) / "ir")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=f"no permission to write in {tmp_path}$"):
        options(tmp_path, dump_ir=tmp_path / "ir")


@pytest.mark.parametrize("name", ["out", "out/ir", "out/config"])
def test_dumps_in_the_output_folder_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"--dump-ir .* writes into -o .*: give a folder outside of it"):
        options(tmp_path, dump_ir=tmp_path / name)


@pytest.mark.parametrize("changes", [{"dry_run": True}, {"stop_after": "a"}])
def test_a_run_that_writes_no_bmodel_takes_any_output_folder(tmp_path, changes):
    options(tmp_path, out_dir=tmp_path / "model", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dry_run": True, "verify": True}, "--dry_run writes nothing: leave out --verify"),
        ({"dry_run": True, "dump_ir": Path("ir")}, "--dry_run writes nothing: leave out --dump-ir"),
        ({"stop_after": "a", "verify": True}, "--stop-after ends early: leave out --verify"),
        ({"stop_after": "a", "dry_run": True}, "--stop-after ends early: leave out --dry_run"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        options(tmp_path, **changes)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Tiny-1B", "tiny-1b"),
        ("models--Org--Tiny-1B/snapshots/0123", "tiny-1b"),
        ("models--Tiny-1B/snapshots/0123", "tiny-1b"),
        ("snapshots/0123", "0123"),
    ],
)
def test_a_bmodel_is_called_by_its_model(tmp_path, path, name):
    (tmp_path / path).mkdir(parents=True)
    if path.startswith("models"):
        (tmp_path / path).parent.parent.joinpath("blobs").mkdir()
    for chip in ("bm1684x", "BM1684X"):
        given = options(tmp_path, model_path=tmp_path / path, chip=chip)
        assert given.bmodel_name == f"{name}_w4bf16_seq512_bm1684x_1dev_static.bmodel"


@pytest.mark.parametrize(
    ("flags", "tail"),
    [
        ({"chip": "cv186ah"}, "cv186ah_1core"),
        ({"chip": "CV186X"}, "cv186ah_1core"),
        ({"chip": "bm1688", "num_core": 1}, "bm1688_1core"),
        ({"chip": "bm1688", "num_core": 2}, "bm1688_2core"),
        ({"chip": "bm1688"}, "bm1688_2core"),
    ],
)
def test_a_bmodel_says_how_many_cores_it_is_for(tmp_path, flags, tail):
    name = options(tmp_path, model_path=tmp_path / "tiny", **flags).bmodel_name
    assert name == f"tiny_w4bf16_seq512_{tail}_static.bmodel"


@pytest.mark.parametrize("field", ["model_path", "out_dir", "dump_ir"])
def test_a_name_with_a_zero_byte_is_refused(tmp_path, field):
    with pytest.raises(UserError, match="not the name of a folder"):
        options(tmp_path, **{field: Path("a\0b")})


def test_a_checkpoint_behind_a_link_is_known_by_its_real_place(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "real")
    with pytest.raises(UserError, match="writes into the checkpoint"):
        options(tmp_path, out_dir=tmp_path / "real" / "out")


def test_the_name_of_a_file_tells_the_devices(tmp_path):
    assert options(tmp_path, num_device=4).bmodel_name.endswith("_bm1684x_4dev_static.bmodel")
    name = options(tmp_path, chip="bm1688", num_core=1, num_device=2).bmodel_name
    assert name.endswith("_bm1688_2dev_1core_static.bmodel")
