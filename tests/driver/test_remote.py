"""Weights made by workers: a real scheduler, and workers that are processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from compiler.diagnostics import UserError
from compiler.ir.types import BF16
from compiler.versions import OURS
from dialects.weights import Joined, Packed
from driver import remote
from driver.blob import Materializer, Piece
from driver.cli import convert_parser
from driver.convert import convert
from driver.options import ConvertOptions
from driver.remote import Executor, Task, carry_out, key_of_task, reached
from frontend.binding import Weights
from frontend.imported import Instance

distributed = pytest.importorskip("distributed")
key_split = pytest.importorskip("dask.utils").key_split
ROOT = Path(__file__).parents[2]


def start_worker(address: str, folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    command += ["--no-dashboard", "--local-directory", str(folder)]
    paths = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen(command, env=paths, cwd=folder, stderr=subprocess.DEVNULL)


@pytest.fixture
def scheduler(tmp_path):
    """Its address, and a function that starts so many more workers; all end with the test."""
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        workers: list[subprocess.Popen[bytes]] = []

        def more(count: int, **environment: str):
            known = len(cluster.scheduler.workers)
            workers.extend(start_worker(cluster.scheduler_address, tmp_path, **environment) for _ in range(count))
            deadline = time.monotonic() + 120
            while len(cluster.scheduler.workers) < known + count and time.monotonic() < deadline:
                time.sleep(0.1)
            assert len(cluster.scheduler.workers) == known + count
            return workers

        yield cluster.scheduler_address.replace("tcp://", "dask://"), more, cluster
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.fixture
def options(tiny_checkpoint, tmp_path) -> ConvertOptions:
    return ConvertOptions(tiny_checkpoint("llama", layers=3), 64, "w4bf16", out_dir=tmp_path / "out", jobs=1)


def test_bytes_are_the_same_wherever_they_were_made(options, scheduler, tmp_path, monkeypatch):
    """No codes by this process."""
    address, more, _ = scheduler
    plain = convert(options).read_bytes()
    pieces = Materializer.pieces

    def without_codes(self, sources):
        assert not any(isinstance(source, Packed) and source.tile.scheme for source in sources)
        return pieces(self, sources)

    monkeypatch.setattr(Materializer, "pieces", without_codes)
    for count, add in ((1, 1), (2, 1), (4, 2)):
        more(add)
        out = replace(options, executor=address, out_dir=tmp_path / f"by_{count}")
        assert convert(out).read_bytes() == plain


def test_a_worker_that_is_killed_costs_only_its_tasks(options, scheduler, tmp_path, monkeypatch):
    address, more, _ = scheduler
    plain = convert(options).read_bytes()
    workers = more(2)
    counted, reached_ = [], remote.reached

    def kill_at_the_third(*given):
        counted.append(1)
        if len(counted) == 3:
            os.kill(workers[0].pid, signal.SIGKILL)
        return reached_(*given)

    monkeypatch.setattr(remote, "reached", kill_at_the_third)
    assert convert(replace(options, executor=address, out_dir=tmp_path / "killed")).read_bytes() == plain
    assert workers[0].wait() == -signal.SIGKILL
    assert len(counted) > 10


def test_the_checkpoint_may_be_named_from_here(options, scheduler, tmp_path, monkeypatch):
    address, more, _ = scheduler
    more(1)
    monkeypatch.chdir(options.model_path.parent)
    relative = replace(options, model_path=Path(options.model_path.name), executor=address)
    assert convert(relative).stat().st_size > 0


def test_a_worker_of_another_version_is_refused(options, scheduler, tmp_path):
    address, more, _ = scheduler
    other = tmp_path / "other"
    for name in OURS:
        shutil.copytree(ROOT / name, other / name)
    with (other / "passes" / "ranges.py").open("a") as file:
        file.write("\n# another version\n")
    more(1)
    more(1, PYTHONPATH=str(other))
    with pytest.raises(UserError, match=r"worker tcp://.* has another version of this program"):
        convert(replace(options, executor=address))
    assert not options.out_dir.exists()


def test_a_scheduler_without_workers_or_none_at_all_is_told(options, scheduler):
    address, _, _ = scheduler
    with pytest.raises(UserError, match=r"has no workers: start some"):
        Executor(address)
    with pytest.raises(UserError, match=r"--executor dask://127.0.0.1:1: "):
        Executor("dask://127.0.0.1:1")


def test_a_task_of_another_version_is_not_carried_out():
    with pytest.raises(UserError, match="another version"):
        carry_out(Task("other", Weights({}), Instance(), (), {}))


def test_a_task_has_the_tensors_that_it_reads_and_no_others():
    names = ("model.layers.1.a", "model.layers.1.b", "model.layers.11.a", "model.norm")
    weights, layer = Weights(dict.fromkeys(names)), Instance(1, "model.layers.1.")
    joined = [Joined(("b", "/model.norm"), BF16)]
    assert [*reached(weights, layer, joined).tensors] == ["model.layers.1.b", "model.norm"]


def test_what_was_made_of_floats_goes_along_and_codes_do_not():
    source = SimpleNamespace(scheme=None)
    weights = Weights(dict.fromkeys(("a", "b")), made={"b": source})

    def made(name: str) -> object:
        found = reached(weights, Instance(), [Joined((f"/{name}",), BF16)])
        return found and found.made

    assert (made("a"), made("b")) == ({}, {"b": source})
    source.scheme = "of 4 bits"
    assert (made("a"), made("b")) == ({}, None)


def test_what_keeps_16_bits_is_not_sent():
    values = np.arange(8).astype(BF16.numpy)
    here = Executor.__new__(Executor)  # that has no client
    make = here.make(Weights({"b": None}), Instance())
    (made,) = make([Piece(0, 16, Joined(("b",), BF16))], Materializer(lambda name: values, {}))
    np.testing.assert_array_equal(made, values)


def test_a_scheduler_knows_tasks_that_take_as_long_by_their_keys():
    small, alike, large = (key_of_task([Piece(0, 8, None), Piece(8, size, None)]) for size in (8, 8, 9))
    assert small != alike
    assert key_split(small) == key_split(alike) != key_split(large)


@pytest.mark.parametrize("method", ["search", "gptq"])
def test_calibrated_weights_are_the_same_too(options, scheduler, tmp_path, method):
    address, more, _ = scheduler
    given = replace(options, calibrate=method)
    plain = convert(given).read_bytes()
    more(2)
    made = replace(given, executor=address, out_dir=tmp_path / "by_workers", cache=tmp_path / "cache")
    assert convert(made).read_bytes() == plain
    assert convert(replace(made, executor=None, out_dir=tmp_path / "cached")).read_bytes() == plain


@pytest.mark.parametrize("text", ["tcp://a:1", "dask://a", "dask://a:99999", "dask://:1", "dask://a b:1"])
def test_what_is_no_address_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        convert_parser().parse_args(["-m", "m", "-s", "2", "--executor", text])
    assert "expected dask://HOST:PORT" in capsys.readouterr().err
