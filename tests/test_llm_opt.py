import os
import subprocess
import sys
from pathlib import Path

import pytest

import llm_opt
import tests.passes.toy_passes  # noqa: F401  (registers the toy passes)

ROOT = Path(__file__).parent.parent
TEXT = """\
"builtin.module"() ({
  "func.func"() <{sym_name = "test", function_type = (tensor<2xf32>) -> tensor<2xf32>}> ({
  ^bb0(%x: tensor<2xf32>):
    %a = "toy.silu"(%x) : (tensor<2xf32>) -> tensor<2xf32> loc("mlp.act")
    %y = "toy.mul"(%a, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    "func.return"(%y) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


EMPTY = '"builtin.module"() ({\n^bb0:\n}) : () -> ()\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "block_0.mlir"
    path.write_text(TEXT)
    return path


def test_without_passes_the_text_comes_back(source, capsys):
    assert llm_opt.main([str(source)]) == 0
    assert capsys.readouterr().out == TEXT


def test_a_stopped_run_continues_to_the_same_text(source, tmp_path, capsys):
    pipeline = "toy-options{count=1},toy-fuse"
    whole, half = tmp_path / "whole.mlir", tmp_path / "half.mlir"
    assert llm_opt.main([str(source), "-p", pipeline, "-o", str(whole)]) == 0
    assert llm_opt.main([str(source), "-p", pipeline, "--stop-after", "toy-options", "-o", str(half)]) == 0
    assert half.read_text().startswith("// passes-left: toy-fuse\n")
    assert "toy.swiglu" in whole.read_text()
    assert llm_opt.main([str(half)]) == 0
    assert capsys.readouterr().out == whole.read_text()


def test_a_file_without_a_target_is_given_one_and_keeps_its_own(tmp_path, capsys):
    file, made = tmp_path / "a.mlir", tmp_path / "b.mlir"
    file.write_text(EMPTY)
    assert llm_opt.main([str(file), "-p", "assign-addresses"]) == 1
    assert 'has no bm.target: add {bm.target = "CHIP"} or give llm_opt.py -c CHIP' in capsys.readouterr().err
    assert llm_opt.main([str(file), "-p", "assign-addresses", "-c", "cv186x", "-o", str(made)]) == 0
    assert '{bm.target = "cv186ah"}' in made.read_text()
    assert llm_opt.main([str(made), "-p", "assign-addresses", "-o", str(file)]) == 0
    assert llm_opt.main([str(made), "-c", "bm1684x"]) == 2
    assert f"{made} is for 'cv186ah' (bm.target), but -c asks for 'bm1684x'" in capsys.readouterr().err
    assert llm_opt.main([str(file), "-c", "bm9"]) == 2
    assert "unknown chip 'bm9'" in capsys.readouterr().err


LONG = f'"toy.x"() <{{a = {"9" * 5000} : i64}}> : () -> ()'
UNREADABLE = {
    "deep brackets": ("[" * 100_000, "nested deeper than 64 brackets"),
    "deep regions": ('"builtin.module"() ({ ' * 1000, "nested deeper than 64 brackets"),
    "long numbers": (LONG, "a number of 5000 digits"),
    "many results": ('%x:99999999999 = "toy.silu"() : () -> ()', "more than 1000 results"),
    "a word for a size": (TEXT.replace("2xf32", "2xtruex2xf32"), "unknown type 'truex2xf32'"),
    "control characters": (TEXT.replace("toy.silu", "toy.\x1b[2J"), r"\x1b[2J"),
    "no values": (TEXT.replace("2xf32", "0xf32"), "has sizes that are not between 1 and"),
    "huge values": (TEXT.replace("2xf32", "99999999999999xf32"), "has sizes that are not between 1 and"),
    "another layout": (TEXT.replace("2xf32", "2xf32, #tensor.lanes<axis = 7>"), "has no axis 7"),
    "text for a number": (TEXT.replace("2xf32", '2xf32, #tensor.lanes<axis = "x">'), "is not int"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_text_that_is_no_ir_is_refused_with_its_place(tmp_path, capsys, case):
    text, message = UNREADABLE[case]
    path = tmp_path / "bad.mlir"
    path.write_text(text)
    assert llm_opt.main([str(path)]) in (1, 2)
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith(f"{path}:")
    assert len(errors) < 1000
    assert "\x1b" not in errors


def test_files_that_cannot_be_read_or_written_are_told_in_a_line(source, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file, message in (("pipe", "not a regular file"), ("binary", "UTF-8"), ("none", "No such file")):
        assert llm_opt.main([str(tmp_path / file)]) == 2
        assert message in capsys.readouterr().err
    for flag in ("-o", "--dump-ir"):
        assert llm_opt.main([str(source), "-p", "toy-fuse", flag, "/proc/no/such"]) == 2
        assert "cannot write /proc/no/such" in capsys.readouterr().err


def test_dumps_are_named_after_the_file(source, tmp_path):
    folder = str(tmp_path / "ir")
    assert llm_opt.main([str(source), "-p", "toy-fuse", "--dump-ir", folder, "-o", "/dev/null"]) == 0
    assert (tmp_path / "ir" / "block_0.01.toy-fuse.mlir").exists()


def test_time_and_list(source, capsys):
    assert llm_opt.main([str(source), "-p", "toy-fuse", "--time-passes", "--print-ir-after", "toy-fuse"]) == 0
    captured = capsys.readouterr().err
    assert "// IR after toy-fuse" in captured
    assert "100%  total" in captured
    assert llm_opt.main(["--list-passes"]) == 0
    assert "toy-fuse" in capsys.readouterr().out


def test_errors_of_the_ir_and_of_the_user(source, tmp_path, capsys):
    assert llm_opt.main([str(source), "-p", "toy-refuse"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"{source}:4:10: error: 'toy.silu' op is not wanted\n")
    assert err.endswith(f"note: in pass toy-refuse; reproduce with: llm_opt.py {source} -p 'toy-refuse'\n")
    assert llm_opt.main([str(tmp_path / "absent.mlir")]) == 2
    assert llm_opt.main([str(source), "-o", str(tmp_path / "no" / "such.mlir")]) == 2
    source.write_text("hello")
    assert llm_opt.main([str(source)]) == 2
    captured = capsys.readouterr()
    assert f"{source}:1:1: error: unexpected 'hello'" in captured.err
    assert captured.out == ""


def test_it_reads_standard_input_and_runs_from_any_folder(tmp_path):
    command = [sys.executable, str(ROOT / "llm_opt.py"), "-"]
    done = subprocess.run(command, input=EMPTY, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, EMPTY, "")
