"""In which order the runs of sections come, and what one section leaves in local memory for the next.

Where the order does not matter, a section begins with the tokens that the one before it ended with: what this
computed of them is read where it is, and is neither stored nor loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from compiler.ir.core import Op, Value
from dialects import llm
from passes.llm_to_tensor.sections import Section
from passes.ranges import Range

CutOf = Callable[[int], list[Range]]  # runs of so many tokens


def set_turns(sections: Sequence[Section], cut: CutOf) -> None:
    """Set the runs of each section in their order, and what it hands on."""
    for section, runs in zip(reversed(sections), _cuts(sections, cut), strict=True):
        section.runs = runs
    if len(sections) > 1:
        _begin_with_others(*sections[:2])
    for section, following in pairwise(sections):
        last = section.runs[-1]
        if not following.is_ordered and following.runs[-1] == last:
            following.runs.reverse()
        if following.runs[0] == last:
            section.handed = {value for value in section.results if _is_read_apart(value, section, following)}


def _begin_with_others(first: Section, following: Section) -> None:
    """Begin with tokens that the next section leaves out, if that ends with a run as it has."""
    runs = first.runs
    if not first.is_ordered and runs[-1] not in following.runs and runs[0] in following.runs:
        runs.reverse()


def _cuts(sections: Sequence[Section], cut: CutOf) -> Iterator[list[Range]]:
    """The runs of each, from the last section to the first. Where they can be, they are those of the one
    behind: tokens that this leaves out are then with the first run, or with the last.
    """
    following, inner = None, list[Range]()
    for section in reversed(sections):
        read = section.read
        if following is None or section.is_ordered or not _has_all(section, following):
            inner = [part.moved(read.start) for part in cut(read.size)]
        else:
            inner = _between([read.start, *(run.start for run in inner[1:]), read.stop])
        following = section
        yield inner


def _between(bounds: Sequence[int]) -> list[Range]:
    return [Range(*pair) for pair in pairwise(bounds)]


def _has_all(section: Section, following: Section) -> bool:
    """Whether what the following one computes is for tokens that this one computes something for."""
    return section.tokens == following.tokens and following.read.within(section.read) == following.read


def _is_read_apart(value: Value, section: Section, following: Section) -> bool:
    """Whether all others that read it are ops of the following section, each token by itself."""
    own, others = {*section.ops}, {*following.ops}
    return all(user in own or (user in others and not _reads_whole(user, value)) for user in value.users)


def _reads_whole(op: Op, value: Value) -> bool:
    """Whether it reads what other tokens have."""
    if isinstance(op, llm.AttentionOp):
        return value in (op.k, op.v)
    return isinstance(op, llm.GatherRowsOp) and value is op.table
