"""`verify`: each net on real activations, against the Hugging Face model in float32.

Every net is given what the reference model has at that point, rounded to the net's type, so that each answers
for its own error only. `Verifier` says on what it is run.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from compiler.client_nets import LOOK_UPS, VIT
from compiler.diagnostics import UserError
from compiler.progress import counter, note, say
from runtime_sim.arrays import Array
from runtime_sim.launch.session import Session
from runtime_sim.launch.tower import Picture
from runtime_sim.tokens.pictures import Pictures
from runtime_sim.tokens.text import Text
from runtime_sim.tool.agreement import EXACT, LIMITS, Agreement, Limits
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.launches import PICTURE, HeadRun, NetRun, Verifier, bits_of
from runtime_sim.tool.reference import Reference
from runtime_sim.tool.run import drawn_order
from runtime_sim.tool.sight import open_tower, seen


@dataclass(frozen=True)
class Suspect:
    """A run that parts from the reference (or that somebody wants to look into), and all that it took."""

    run: NetRun
    session: Session
    reference: Reference
    tokens: list[int]  # the reference's run
    limits: Limits

    def parts(self, outputs: Sequence[Array]) -> bool:
        """Whether outputs are not those of the reference."""
        return self.run.parts(outputs, self.limits)


Bisect = Callable[[Suspect, Path], Iterator[str]]  # says in lines where a net goes wrong, by its dumps


@dataclass
class Result:
    """What all runs of a net came to."""

    name: str
    limits: Limits
    agreements: dict[str, Agreement] = field(default_factory=dict)  # by output; none for a head
    head: list[str] = field(default_factory=list)  # lines about the tokens it says
    problems: list[str] = field(default_factory=list)
    suspect: NetRun | None = None  # the first run that parts; else the first

    def line(self) -> str:
        if self.head:
            return f"{self.name:18} {self.head[-1]}"
        angle = min(self.agreements, key=lambda name: _or_lowest(self.agreements[name].cosine))
        lowest = {name: found.cosines[found.worst] for name, found in self.agreements.items()}
        token = min(lowest, key=lambda name: _or_lowest(lowest[name]))
        stretch = max(self.agreements, key=lambda name: -_or_lowest(-self.agreements[name].stretch))
        open_ = max(int((~found.decided).sum()) for found in self.agreements.values())
        return (
            f"{self.name:18} cosine {self.agreements[angle].cosine:.6f} ({angle})  "
            f"of the worst token {lowest[token]:.4f} ({token})  "
            f"lengths off by {self.agreements[stretch].stretch:.2%} ({stretch})"
            + (f"  rounding may choose experts of {open_} tokens" if open_ else "")
        )


def _or_lowest(value: float) -> float:
    """A value to find the worst by: what is not a number is the worst."""
    return -np.inf if np.isnan(value) else value


def run(arguments: Namespace) -> int:
    check_flags(arguments)
    order = drawn_order(arguments.order)
    session = open_session(arguments.file, arguments.file.parent / "config", arguments.exact, order)
    if arguments.bisect and not session.runtime.has_net(arguments.bisect):
        raise UserError(f"--bisect {arguments.bisect}: the file has no such net")
    note(f"run {arguments.reference} in float32")
    reference = Reference(arguments.reference)
    pictures = _pictures(arguments, session)
    verifier = Verifier(session, reference, _prompt(arguments, reference, session), pictures)
    results = []
    with counter("verify", verifier.net_count, " nets") as done:
        for result in results_of(verifier, arguments.min_cosine):
            say(result.line())
            results.append(result)
            done()
    print(verdict(results, arguments.reference), flush=True)
    asked = [
        each for each in results if each.name == arguments.bisect or (each.problems and not arguments.bisect)
    ]
    runs = [(each.suspect, each.limits) for each in asked if each.suspect]
    if arguments.ir and runs:
        suspect = Suspect(runs[0][0], session, reference, verifier.tokens, runs[0][1])
        for line in arguments.bisect_net(suspect, arguments.ir):
            print(line, flush=True)
    return 1 if any(each.problems for each in results) else 0


def check_flags(arguments: Namespace) -> None:
    """What can be told to be wrong before any work."""
    if arguments.bisect and not arguments.ir:
        raise UserError("--bisect needs --ir: the folder that llm_convert.py --dump-ir wrote")
    if arguments.ir and not arguments.ir.is_dir():
        raise UserError(f"--ir {arguments.ir}: no such folder")
    if arguments.min_cosine is not None and not 0 <= arguments.min_cosine <= 1:
        raise UserError(f"--min-cosine {arguments.min_cosine}: expected a number from 0 to 1")


def verify_file(file: Path, reference: Path, ir: Path | None = None, bisect_net: Bisect | None = None) -> int:
    """As the command does by default; 0 when the file computes what the reference does."""
    settings = dict.fromkeys(("order", "prompt", "image", "min_cosine", "bisect"))
    return run(
        Namespace(file=file, reference=reference, ir=ir, bisect_net=bisect_net, exact=False, **settings)
    )


def limits_of(net: str, verifier: Verifier, min_cosine: float | None) -> Limits:
    """Of a net by what it is and by its weights; `min_cosine` replaces two of them."""
    limits, net = EXACT, net.removesuffix(PICTURE)
    if net not in LOOK_UPS or not verifier.reference.looks_up:
        limits = LIMITS[bits_of(verifier.session.runtime.net(net))]
    if min_cosine is None:
        return limits
    return Limits(min_cosine, limits.stretch, min(min_cosine, limits.token_cosine), limits.token_stretch)


def verdict(results: Sequence[Result], reference: Path) -> str:
    """What it all comes to, in one line."""
    bad = [each for each in results if each.problems]
    if bad:
        text = f"{len(bad)} of {len(results)} nets part from the reference, first at {bad[0].problems[0]}"
        others = "" if len(bad) < len(results) else f"\nno net agrees: is {reference} what was compiled?"
        return text + others
    found = [each for result in results for each in result.agreements.values()]
    cosine = min(each.cosine for each in found)
    token, stretch = min(each.cosines[each.worst] for each in found), max(each.stretch for each in found)
    return (
        f"the file computes what {reference} does: {len(results)} nets, lowest cosine {cosine:.6f}, "
        f"of the worst token {token:.4f}, lengths within {stretch:.2%}"
    )


def results_of(verifier: Verifier, min_cosine: float | None = None) -> Iterator[Result]:
    """Run net after net; each is done before the next is begun."""
    session = verifier.session
    if session.table is not None:
        rows = reduce(add, verifier.table_rows())
        problems = [f"embedding.bin rows ({text})" for text in EXACT.broken_by_one(rows)]
        yield _judged(Result("embedding.bin", EXACT, {"rows": rows}, problems=problems))
    for name, runs in verifier.nets():
        result = Result(name, limits_of(name, verifier, min_cosine))
        for each in runs:
            outputs = [output.array for output in each.net.outputs]
            _add(result, each, outputs)
        yield _judged(result)


def _add(result: Result, run: NetRun, outputs: Sequence[Array]) -> None:
    """Take the outputs of one launch into account."""
    problems = run.problems(outputs, result.limits)
    if result.suspect is None or (problems and not result.problems):
        result.suspect = run
    if isinstance(run, HeadRun):
        result.head.append(run.text(run.token(outputs)))
    else:
        for name, found in run.agreements(outputs).items():
            known = result.agreements.get(name)
            result.agreements[name] = known + found if known else found
    result.problems += problems


def _judged(result: Result) -> Result:
    """What can be said only of all runs together."""
    for output, found in result.agreements.items():
        texts = result.limits.broken_by_most(found)
        result.problems += [f"{result.name} {output} ({text})" for text in texts]
    return result


def _prompt(arguments: Namespace, reference: Reference, session: Session) -> list[int]:
    """The tokens to run on, again and again until the caches are full."""
    if arguments.prompt is None:
        rng = np.random.default_rng(0)
        return [int(token) for token in rng.integers(0, reference.vocabulary, session.sizes.history_rows)]
    tokens = Text(_config(arguments)).encode(arguments.prompt)
    rows = session.sizes.prefill_rows
    if not 0 < len(tokens) <= rows:
        raise UserError(f"--prompt has {len(tokens)} tokens; this file takes 1 to {rows}")
    if max(tokens) >= reference.vocabulary:
        raise UserError(f"--prompt has token {max(tokens)}; the reference knows {reference.vocabulary}")
    return tokens


def _pictures(arguments: Namespace, session: Session) -> list[Picture]:
    """Those to run the tower on; none where it is to be any. Only then must there be one."""
    config = _config(arguments)
    if not arguments.image and not session.runtime.has_net(VIT):
        return []
    tower = session.tower = open_tower(session.runtime, config)
    if not arguments.image:
        return []
    processor, most = Pictures(config), tower.most(session.sizes.prefill_rows)
    return [seen(tower, file, processor.read(file, most)) for file in arguments.image]


def _config(arguments: Namespace) -> Path:
    beside: Path = arguments.file.parent / "config"
    return beside if beside.is_dir() else arguments.reference
