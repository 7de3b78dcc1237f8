"""Draw cases of a group, run them one after the other, and keep the folders of those that failed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.groups import GROUPS
from tests.fuzz.harness import Run, remove, run_case, warm_up
from tests.fuzz.judge import OUTCOMES, Outcome, judge
from tests.fuzz.samples import Samples, make_samples

KEPT = ("look",)  # kept like failures: a person is to look at them


@dataclass(frozen=True)
class Result:
    group: str
    number: int
    case: Case
    run: Run
    outcome: Outcome

    @property
    def title(self) -> str:
        return f"{self.group} {self.number}: {self.outcome.kind}: {self.outcome.cause}"


@dataclass
class Fuzzer:
    """Works in a folder: samples/, the case at hand, and GROUP-NUMBER/ for each that failed."""

    folder: Path
    seed: int
    samples: Samples = field(init=False)

    def __post_init__(self) -> None:
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "samples").is_dir():
            raise SystemExit(f"error: {self.folder} is not the folder of an earlier run: name an empty one")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        warm_up()
        self.samples = make_samples(self.folder / "samples")

    def run(self, group: str, numbers: Iterable[int]) -> list[Result]:
        return [self.run_one(group, number) for number in numbers]

    def run_one(self, group: str, number: int, keep: bool = False) -> Result:
        """A case depends on nothing but seed, group and number."""
        folder = self.folder / f"{group}-{number}"
        folder.mkdir()
        case = GROUPS[group](Random(f"{self.seed} {group} {number}"), folder, self.samples)
        run = run_case(case, folder)
        result = Result(group, number, case, run, judge(case, run))
        if keep or result.outcome.bad or result.outcome.kind in KEPT:
            folder.with_name(folder.name + ".txt").write_text(self.report(result), errors="backslashreplace")
        else:
            remove(folder)
        remove(folder.with_name(folder.name + ".logs"))
        return result

    def report(self, result: Result) -> str:
        case, run = result.case, result.run
        return "\n".join((
            result.title,
            f"  what:    {case.what}",
            f"  command: {case.line}",
            f"  again:   python -m tests.fuzz --seed {self.seed} --group {result.group} --case {result.number}",
            f"  ended:   {run.status} after {run.seconds:.2f} s with {run.peak >> 20} MB",
            f"  verdict: {' '.join(run.verdict).strip() or 'none'}",
            f"  changes: {', '.join(run.changes)[:500] or 'none'}",
            f"  stdout:  {run.stdout[-500:]}",
            f"  stderr:  {run.stderr[-6000:]}",
            "",
        ))  # fmt: skip


HEADING = f"{'':12}{'cases':>7}" + "".join(f"{kind:>10}" for kind in OUTCOMES) + f"{'s/case':>8}"


def row(name: str, results: Sequence[Result]) -> str:
    """How many cases had each outcome."""
    counts = Counter(result.outcome.kind for result in results)
    cells = "".join(f"{counts[kind] or '-':>10}" for kind in OUTCOMES)
    seconds = sum(result.run.seconds for result in results) / max(len(results), 1)
    return f"{name:12}{len(results):>7}{cells}{seconds:>8.2f}"


def causes(results: Sequence[Result]) -> str:
    """Distinct faults, the most frequent first, each with the first case that shows it."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.outcome.cause:
            found.setdefault((result.outcome.kind, result.outcome.cause), []).append(result)
    lines = []
    for (kind, cause), same in sorted(found.items(), key=lambda item: (OUTCOMES.index(item[0][0]), -len(item[1]))):
        first = same[0]
        lines.append(f"{len(same):5}  {kind}: {cause}\n       {first.group} {first.number}: {first.case.what[:200]}")
    return "\n".join(lines)


def run_groups(fuzzer: Fuzzer, groups: Sequence[str], count: int) -> list[Result]:
    """Prints a row when a group is done, and the sum of all."""
    results: list[Result] = []
    print(HEADING, flush=True)
    for group in groups:
        found = fuzzer.run(group, range(count))
        results += found
        print(row(group, found), flush=True)
    print(row("all", results))
    return results
