"""llm_convert.py as its user meets it: flags, messages, exit codes, signals."""

from __future__ import annotations

import errno
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

from compiler.command import run_command, show_log
from compiler.diagnostics import CompileError, UserError, log
from driver.cli import convert_main, convert_parser
from driver.options import ConvertOptions

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-m", "model", "-s", "512", "-q", "w4bf16"]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the compiler behind the command; `seen` holds the options that it was called with."""
    module = ModuleType("driver.convert")
    module.seen = []

    def convert(options: ConvertOptions) -> Path | None:
        module.seen.append(options)
        return None if options.stop_after else Path("x.bmodel")

    module.convert = convert
    monkeypatch.setitem(sys.modules, "driver.convert", module)
    return module


@pytest.mark.parametrize(("text", "pixels"), [("672,896", (672, 896)), ("602112", (602112,)), ("56, 84", (56, 84))])
def test_a_size_of_pictures_is_height_and_width_or_a_number(driver, text, pixels):
    assert convert_main([*FLAGS, "--max_pixels", text]) == 0
    assert driver.seen[0].max_pixels == pixels


@pytest.mark.parametrize("text", ["56,0", "1,2,3", "many", "", "-5"])
def test_other_sizes_of_pictures_are_refused(driver, capsys, text):
    with pytest.raises(SystemExit):
        convert_main([*FLAGS, f"--max_pixels={text}"])
    assert "expected H,W or a number, such as 672,896 or 602112" in capsys.readouterr().err


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
        if field.name == "as_stored":  # what a checkpoint says, not a flag
            continue
        assert parsed[field.name] == field.default, field.name


def test_every_flag_reaches_its_field(driver):
    rest = "--max_input_length 128 --chunk_length 64 -c bm1684x --num_device 1 --num_core 1 --embedding_disk --passes a,b{k=v}"
    for more in ("--dump-ir ir --stop-after a -j 2 -v", "--verify", "--dry_run"):
        assert convert_main([*FLAGS, *rest.split(), *more.split()]) == 0
    assert convert_main([*FLAGS, *"--lm_head_quantize 8 --calibrate search --calibration_text t --keep a=4 --keep *.b=16".split()]) == 0
    stop, verify, dry, mixed = driver.seen
    assert (stop.max_input_length, stop.chunk_length, stop.num_core, stop.jobs) == (128, 64, 1, 2)
    assert (stop.embedding_disk, stop.dump_ir, stop.stop_after) == (True, Path("ir"), "a")
    assert (mixed.calibrate, mixed.calibration_text) == ("search", Path("t"))
    assert [(rule.pattern, rule.bits) for rule in mixed.rules] == [("*", 8), ("a", 4), ("*.b", 16)]
    assert (verify.verify, dry.dry_run, dry.passes) == (True, True, "a,b{k=v}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: the following arguments are required: -m/--model_path"),
        ([*FLAGS, "--symmetrical"], "error: unrecognized arguments: --symmetrical"),
        ([*FLAGS[:-1], "w5"], "error: argument -q/--quantize: invalid choice: 'w5' (choose from"),
        ([*FLAGS, "-g", "many"], "error: argument -g/--q_group_size: invalid int value: 'many'"),
        ([*FLAGS, "-g", "9" * 5000], "error: argument -g/--q_group_size: invalid int value: '999"),
        ([*FLAGS, "-o", ""], "error: argument -o/--out_dir: expected the name of a folder, not ''"),
        ([*FLAGS, "--\x1b[2J"], r"error: unrecognized arguments: --\x1b[2J"),
    ],
)
def test_bad_flags_are_two_lines(driver, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        convert_main(flags)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(message)
    assert len(lines[0]) < 1100
    assert driver.seen == []


@pytest.mark.parametrize("flags", [["-s", "0"], ["-c", "bm1690"], ["-o", "model/out"], ["--num_device", "9"]])
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
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: cannot write standard output or dumps: No space"),
        (OSError(errno.EIO, "broken", "a/b"), 2, "error: a/b: broken\n"),
        (MemoryError(), 2, "error: not enough memory\n"),
        (UserError("no \x1b[2J\u202e\udc80 here"), 2, r"error: no \x1b[2J\u202e\udc80 here"),
    ],
)
def test_errors_are_messages_with_an_exit_code(capsys, error, code, message):
    assert run_command(raising(error)) == code
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("error", [AssertionError("ours"), ValueError("ours")])
def test_errors_of_the_compiler_itself_are_not_hidden(error):
    with pytest.raises(type(error)):
        run_command(raising(error))


@pytest.mark.parametrize(("verbose", "lines"), [(False, ["note: b"]), (True, ["a", "note: b"])])
def test_only_notes_are_printed_off_a_terminal(capsys, verbose, lines):
    show_log(verbose)
    log.info("a")
    log.warning("b")
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
from driver import cli
from driver.output import staged_output

def convert(options):
    with staged_output(options.out_dir, "m.bmodel") as output:
        (output.folder / "m.bmodel").write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(30)

sys.modules["driver.convert"] = types.ModuleType("driver.convert")
sys.modules["driver.convert"].convert = convert
sys.exit(cli.convert_main())
"""


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize("other", [[], ["notes"]], ids=["alone", "beside a file of the user"])
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_leaves_nothing_half_written(tmp_path, number, code, other):
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
    for name in other:
        out.mkdir()
        (out / name).touch()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors == "interrupted\n"
    assert [path.name for path in tmp_path.rglob("*") if path != out] == other


def test_output_to_a_closed_pipe_ends_quietly():
    script = f"import sys; sys.argv=['x','--help']; sys.path.insert(0, {str(ROOT)!r})\n" + (
        "from compiler.command import run_command\nsys.exit(run_command(lambda: print('x' * 1000000)))"
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


IMPORTING = """
import os, signal, sys
sys.argv[0] = "llm_convert.py"
import llm_convert

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "driver.convert":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(llm_convert.main())
"""


def python(script: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, **more
    )


def test_a_signal_while_the_compiler_is_imported_is_a_line():
    done = python(IMPORTING, *FLAGS)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_signal_that_the_command_was_started_to_ignore_is_ignored():
    script = (
        "import os, signal, sys\nfrom compiler.command import run_command\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "sys.exit(run_command(lambda: os.kill(os.getpid(), signal.SIGHUP)))"
    )
    done = python(script)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda: None) == 0
    assert signal.getsignal(signal.SIGTERM) is before


PRINTING = "import sys\nfrom compiler.command import run_command\nsys.exit(run_command(lambda: print('x' * 99999)))"


def test_output_to_a_full_disk_is_a_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTING], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    expected = "error: cannot write standard output or dumps: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, expected)


CLOSED = """
import os, sys
from compiler.command import run_command
from compiler.diagnostics import UserError

def action():
    with open("/dev/null") as file:
        assert file.fileno() > 2
    print("x")
    raise UserError("bad")

sys.exit(run_command(action))
"""


@pytest.mark.parametrize("streams", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "2>/dev/full"])
def test_streams_may_be_closed(streams):
    done = subprocess.run(
        f'"$PY" -c "$SCRIPT" {streams}',
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PY": sys.executable, "SCRIPT": CLOSED},
        timeout=60,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_name_that_is_no_text_is_printed_as_it_is():
    script = (
        "import os, sys\nfrom compiler.command import run_command\n"
        "sys.exit(run_command(lambda: print(os.fsdecode(bytes([255, 10])))))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"\xff\n\n")


@pytest.mark.parametrize("name", ["torch", "transformers.models", None])
def test_a_library_that_is_missing_is_a_line(driver, capsys, name):
    def convert(options: ConvertOptions) -> None:
        raise ImportError("No module", name=name)

    driver.convert = convert
    assert convert_main(FLAGS) == 2
    library = (name or "torch and transformers").split(".")[0]
    assert capsys.readouterr().err.startswith(f"error: compiling needs {library} (No module): pip install ")


def test_a_module_of_ours_that_is_missing_is_our_mistake(driver):
    def convert(options: ConvertOptions) -> None:
        raise ImportError("No module", name="passes.x")

    driver.convert = convert
    with pytest.raises(ImportError):
        convert_main(FLAGS)
