"""llm_convert.py as its user meets it: flags, messages, exit codes, signals."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from compiler.cli import convert_main, convert_parser, run_command, show_log
from compiler.diagnostics import CompileError, UserError
from compiler.options import ConvertOptions

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-m", "model", "-s", "512", "-q", "w4bf16"]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the compiler behind the command; `seen` holds the options that it was called with."""
    module = ModuleType("compiler.driver")
    module.seen = []

    def convert(options: ConvertOptions) -> Path | None:
        module.seen.append(options)
        return None if options.stop_after else Path("x.bmodel")

    module.convert = convert
    monkeypatch.setitem(sys.modules, "compiler.driver", module)
    return module


def test_flags_become_options(driver, capsys, tmp_path):
    assert (
        convert_main(["-m", "m", "-s", "384", "-q", "w8f16", "-g", "32", "--symmetric", "-o", str(tmp_path)])
        == 0
    )
    expected = ConvertOptions(Path("m"), 384, "w8f16", 32, symmetric=True, out_dir=tmp_path)
    assert driver.seen == [expected]
    assert capsys.readouterr().out == "x.bmodel\n"


def test_no_file_no_name(driver, capsys):
    assert convert_main([*FLAGS, "--stop-after", "a"]) == 0
    assert capsys.readouterr().out == ""


def test_defaults_are_those_of_the_options():
    parsed = vars(convert_parser().parse_args(FLAGS))
    for field in fields(ConvertOptions)[3:]:
        assert parsed[field.name] == field.default, field.name


def test_every_flag_reaches_its_field(driver):
    rest = "--max_input_length 128 -c bm1684x --num_device 1 --num_core 1 --embedding_disk --dry_run --verify"
    more = "--dump-ir ir --stop-after a --passes a,b{k=v} -j 2 -v"
    assert convert_main([*FLAGS, *rest.split(), *more.split()]) == 0
    (options,) = driver.seen
    assert (options.max_input_length, options.num_core, options.jobs) == (128, 1, 2)
    assert (options.embedding_disk, options.dry_run, options.verify) == (True, True, True)
    assert (options.dump_ir, options.stop_after, options.passes) == (Path("ir"), "a", "a,b{k=v}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: the following arguments are required: -m/--model_path"),
        ([*FLAGS, "--symmetrical"], "error: unrecognized arguments: --symmetrical"),
        ([*FLAGS[:-1], "w5"], "error: argument -q/--quantize: invalid choice: 'w5' (choose from"),
        ([*FLAGS, "-g", "many"], "error: argument -g/--q_group_size: invalid int value: 'many'"),
    ],
)
def test_bad_flags_are_two_lines(driver, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        convert_main(flags)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(message)
    assert driver.seen == []


@pytest.mark.parametrize("flags", [["-s", "0"], ["-c", "bm1690"], ["-o", "model/out"], ["--num_device", "2"]])
def test_bad_values_are_one_line_and_exit_code_2(driver, capsys, flags):
    assert convert_main([*FLAGS, *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert driver.seen == []


def raising(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("no folder x"), 2, "error: no folder x\n"),
        (CompileError("cannot lower", notes=["from model.layers.0"]), 1, "error: cannot lower\nnote: from"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device"),
    ],
)
def test_errors_are_messages_with_an_exit_code(capsys, error, code, message):
    assert run_command(raising(error)) == code
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("error", [AssertionError("ours"), OSError(errno.EIO, "broken"), ValueError("ours")])
def test_errors_of_the_compiler_itself_are_not_hidden(error):
    with pytest.raises(type(error)):
        run_command(raising(error))


@pytest.mark.parametrize(("verbose", "lines"), [(False, ["note: b"]), (True, ["a", "note: b"])])
def test_only_notes_are_printed_off_a_terminal(capsys, verbose, lines):
    show_log(verbose)
    logging.getLogger("compiler.driver").info("a")
    logging.getLogger("compiler.driver").warning("b")
    assert capsys.readouterr().err.splitlines() == lines


def command(*flags: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "llm_convert.py", *flags], capture_output=True, text=True, timeout=60, **more
    )


def test_help_starts_at_once_and_from_anywhere(tmp_path):
    (tmp_path / "compiler").mkdir()
    (tmp_path / "compiler" / "__init__.py").write_text("raise SystemExit('the wrong compiler')")
    start = time.monotonic()
    done = command("--help", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert time.monotonic() - start < 3  # importing torch alone takes as long
    assert done.returncode == 0
    assert "-m DIR, --model_path DIR" in done.stdout
    assert done.stderr == ""


STAND_IN = """
import sys, time, types
from pathlib import Path
from compiler import cli
from compiler.output import staged_output

def convert(options):
    with staged_output(options.out_dir) as folder:
        (folder / "m.bmodel").write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(30)

sys.modules["compiler.driver"] = types.ModuleType("compiler.driver")
sys.modules["compiler.driver"].convert = convert
sys.exit(cli.convert_main())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_half_written(tmp_path, number, code):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", STAND_IN, *FLAGS, "-o", str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_output_to_a_closed_pipe_ends_quietly():
    script = f"import sys; sys.argv=['x','--help']; sys.path.insert(0, {str(ROOT)!r})\n" + (
        "from compiler.cli import run_command\nsys.exit(run_command(lambda: print('x' * 1000000)))"
    )
    done = subprocess.run(
        '"$PY" -c "$SCRIPT" | head -c 1',
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PY": sys.executable, "SCRIPT": script},
        timeout=60,
    )
    assert done.stdout == "x"
    assert done.stderr == ""
