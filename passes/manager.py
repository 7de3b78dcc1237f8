"""Passes by name: pipeline strings, verification after each pass, dumps that can be continued, timing."""

from __future__ import annotations

import re
import sys
import time
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TextIO

from compiler.diagnostics import CompileError, UserError
from compiler.ir.core import Op
from compiler.ir.location import FileLoc
from compiler.ir.module import Module, walk
from compiler.ir.printer import print_module
from compiler.ir.verify import States, verify
from compiler.target.attribute import TARGET
from dialects.contents import Content, contents, contents_of
from passes.options import check_option, option_text, parse_option, usage

# Pass name to class; a class with a name registers itself when it is defined.
PASSES: dict[str, type[Pass]] = {}

HEADER = "// passes-left: "
DIALECTS = Content.LLM | Content.TENSOR
SHOWN = 60  # characters of a wrong pipeline in a message


@dataclass(frozen=True)
class Pass:
    """A step over a module. Subclasses set ``name``; the fields of a frozen dataclass are the pass's options.

    The docstring begins with the dialects that it reads and leaves, such as ``llm -> tensor.`` For the order
    of passes, ``takes`` is all that a module may hold when the pass runs, ``ends`` what is gone afterwards,
    and ``leaves`` what is there instead. ``changes`` are the classes of ops that it makes or changes, beyond
    moving them: of the others only the order is verified after it. Those that are as they were before the
    pass are not verified again either, and all of them are after the last pass.
    """

    name: ClassVar[str] = ""
    takes: ClassVar[Content] = ~Content.NOTHING
    ends: ClassVar[Content] = Content.NOTHING
    leaves: ClassVar[Content] = Content.NOTHING
    changes: ClassVar[tuple[type[Op], ...]] = (Op,)

    def __init_subclass__(cls) -> None:
        if "name" in cls.__dict__:
            assert cls.name not in PASSES, f"pass {cls.name} is defined twice"
            PASSES[cls.name] = cls

    def __post_init__(self) -> None:
        """UserError for an option that the pass cannot work with."""
        for part in fields(self):
            check_option(self.name, part, getattr(self, part.name))

    def run(self, module: Module) -> None:
        """Change the module in place; CompileError when it cannot be compiled."""
        raise NotImplementedError

    def __str__(self) -> str:
        """As in a pipeline, with the options that differ from their defaults."""
        options = [
            f"{f.name}={option_text(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}{{{' '.join(options)}}}" if options else self.name


def pipeline_text(passes: Iterable[Pass]) -> str:
    """The pipeline string that parses back to these passes."""
    return ",".join(str(p) for p in passes)


def parse_pipeline(text: str) -> list[Pass]:
    """Passes of a pipeline string such as ``fuse-swiglu,quantize-weights{bits=4 group=128}``."""
    return [_parse_pass(part) for part in _split_pipeline(text)]


def _split_pipeline(text: str) -> list[str]:
    parts = re.findall(r"[^,{}\s][^,{}]*(?:\{[^{}]*\})?", text)
    if re.sub(r"[,\s]", "", text) != re.sub(r"[,\s]", "", "".join(parts)):
        raise UserError(f"pipeline {quoted(text)}: braces do not match; write 'a,b{{option=value}}'")
    if len(re.sub(r"\{[^{}]*\}", "", text).split(",")) != max(1, len(parts)) or (text and not parts):
        raise UserError(f"pipeline {quoted(text)}: a comma without a pass; write 'a,b{{option=value}}'")
    return parts


def quoted(text: str) -> str:
    """A pipeline in a message, which is to be short."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def _parse_pass(text: str) -> Pass:
    name, _, options = text.strip().rstrip("}").partition("{")
    if name not in PASSES:
        raise UserError(f"unknown pass {quoted(name)}; known: {', '.join(sorted(PASSES))}")
    cls = PASSES[name]
    known, values = options_of(name), {}
    for option in options.split():
        key, equals, value = option.partition("=")
        key = key.replace("-", "_")
        if key not in known:
            raise UserError(f"pass {name} has no option {quoted(key)}; known: {', '.join(known) or 'none'}")
        if key in values:
            raise UserError(f"pass {name} is given option {key} twice")
        values[key] = parse_option(name, key, known[key], value if equals else "true")
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
    if missing:
        raise UserError(f"pass {name} needs option {missing[0]!r}: {name}{{{missing[0]}=...}}")
    return cls(**values)


@cache
def options_of(name: str) -> Mapping[str, Any]:
    """The types of a pass's options, by their names."""
    hints = typing.get_type_hints(PASSES[name])
    return {part.name: hints[part.name] for part in fields(PASSES[name])}


def list_passes() -> str:
    """Of each pass: its options with their defaults, what it does, and between which others it can run."""
    lines = []
    for name, cls in sorted(PASSES.items()):
        options = " ".join(usage(f.name, f.default) for f in fields(cls))
        written = f"{name}{{{options}}}" if options else name
        summary = (cls.__doc__ or "").strip().partition("\n")[0]
        lines += [f"{written:<40} {summary}", *_order_lines(cls)]
    return "\n".join(lines)


def _order_lines(cls: type[Pass]) -> list[str]:
    parts = {"takes": cls.takes, "ends": cls.ends, "leaves": cls.leaves}
    told = [f"{verb} {content}" for verb, content in parts.items() if content not in (Pass.takes, Pass.ends)]
    return [f"{'':<4}{'; '.join(told)}"] if told else []


def check_order(passes: Iterable[Pass], held: Content, source: str) -> Content:
    """What a module that holds `held` holds after these passes; UserError when one of them cannot run there.

    `source` is what the module is called in messages.
    """
    makers: dict[str, str] = {}
    for step in passes:
        refused = (held & ~step.takes).words()
        if refused:
            raise UserError(_refusal(step, refused[0], makers.get(refused[0]), source))
        held = held & ~step.ends | step.leaves
        makers |= dict.fromkeys(step.leaves.words(), step.name)
    return held


def _refusal(step: Pass, content: str, maker: str | None, source: str) -> str:
    origin = f"{maker}, before it, leaves" if maker else f"{source} has"
    first = [cls.name for cls in passes_that_end(Content[content.upper()]) if not cls.leaves & ~step.takes]
    hint = "once is enough" if maker == step.name else f"run it before {maker}" if maker else ""
    done = bool(Content[content.upper()] & step.leaves) and not maker
    hint = f"run {first[0]} first" if first else "leave it out, its work is done" if done else hint
    return f"pass {step.name} takes {step.takes}\n{origin} {content}{': ' if hint else ''}{hint}"


def check_ended(step: Pass, module: Module) -> None:
    """CompileError at the first op of what the pass ends, such as an op of the dialect that it converts."""
    if not step.ends or not contents(module) & step.ends:
        return
    for op in walk(module):
        for content in (contents_of(op) & step.ends).words():
            op.fail(f"is left behind: {step.name} ends {content}")


def passes_that_end(content: Content) -> list[type[Pass]]:
    """The passes after which some of it is gone."""
    return [cls for _, cls in sorted(PASSES.items()) if content & cls.ends]


def passes_left(text: str) -> str | None:
    """The pipeline in the first line of a dump; None when the text is not a dump."""
    first = text.partition("\n")[0] + " "
    return first[len(HEADER) :].strip() if first.startswith(HEADER) else None


@dataclass
class PassManager:
    """Runs passes in order over modules.

    With ``dump_dir``, the input and the result of each pass become ``<dump_prefix>.<number>.<pass>.mlir``,
    whose first line is the pipeline that remains. ``source`` is the file that the module was read from, for
    the command that reproduces an error.
    """

    passes: Sequence[Pass]
    verify_each: bool = True
    dump_dir: Path | None = None
    dump_prefix: str = "module"
    stop_after: str | None = None
    print_after: Sequence[str] = ()
    print_after_change: bool = False
    source: str | None = None
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    seconds: dict[str, float] = field(default_factory=dict)  # per pass, summed over all modules
    tell: Callable[[], object] = lambda: None  # that the next pass is done, for who waits

    def __post_init__(self) -> None:
        names = [p.name for p in self.passes]
        for name in [*self.print_after, *([self.stop_after] if self.stop_after else [])]:
            if name not in names:
                raise UserError(f"pass {name!r} is not in the pipeline {pipeline_text(self.passes)}")

    def run(self, module: Module) -> list[Pass]:
        """Run the passes on one module; returns those left undone by ``stop_after``."""
        states = self.verify(module)
        check_order(self.passes, contents(module), self.source or "the module")
        dump = _Dump(self, module)
        dump.write(0, "input")
        for index, step in enumerate(self.passes):
            before = print_module(module) if self.print_after_change else ""
            is_last = index + 1 == len(self.passes) or step.name == self.stop_after
            if is_last or step.ends & DIALECTS:  # none of the ops will be as it was: their memory is of use
                states = {}
            try:
                states = self._run_pass(step, module, states, is_last)
            except CompileError as error:
                dump.place(error)
                error.notes.append(self._reproducer(index, module, dump.path))
                raise
            except Exception as error:
                if sys.version_info >= (3, 11):
                    error.add_note(f"note: {self._reproducer(index, module, dump.path)}")
                raise
            self.tell()
            dump.write(index + 1, step.name)
            self._show(step, module, before)
            if step.name == self.stop_after:
                return list(self.passes[index + 1 :])
        return []

    def _run_pass(self, step: Pass, module: Module, before: States, is_last: bool) -> States:
        start = time.perf_counter()
        step.run(module)
        self.seconds[step.name] = self.seconds.get(step.name, 0.0) + time.perf_counter() - start
        states = self.verify(module, (Op,) if is_last else step.changes, before)
        if self.verify_each:
            check_ended(step, module)
        return states

    def verify(
        self, module: Module, changed: tuple[type[Op], ...] = (Op,), before: States | None = None
    ) -> States:
        """CompileError at the first op that is wrong, unless this is off; see `compiler.ir.verify`."""
        return verify(module, changed, before) if self.verify_each else {}

    def _reproducer(self, index: int, module: Module, dumped: Path | None) -> str:
        step = self.passes[index]
        if dumped is None and self.source is None:
            return f"in pass {step.name}; dump the IR to reproduce it"
        run = pipeline_text([step] if dumped else self.passes[: index + 1])
        target = module.attributes.get(TARGET) if dumped is None else None  # a dump says it by itself
        chip = f" -c {target}" if target else ""
        return f"in pass {step.name}; reproduce with: llm_opt.py {dumped or self.source}{chip} -p '{run}'"

    def _show(self, step: Pass, module: Module, before: str) -> None:
        wanted = step.name in self.print_after
        if wanted or self.print_after_change:
            text = print_module(module)
            if wanted or text != before:
                print(f"// IR after {step}\n{text}", file=self.stream)

    def timing_report(self) -> str:
        """A line per pass, slowest first."""
        total = sum(self.seconds.values())
        lines = [f"{'seconds':>9}  {'share':>5}  pass"]
        for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            lines.append(f"{seconds:9.3f}  {seconds / total if total else 0:5.0%}  {name}")
        return "\n".join([*lines, f"{total:9.3f}   100%  total"])


class _Dump:
    """The newest dump of one module: its file, and where each op stands in it."""

    def __init__(self, manager: PassManager, module: Module) -> None:
        self.manager = manager
        self.module = module
        self.path: Path | None = None
        self.positions: dict[Op, tuple[int, int]] = {}

    def write(self, number: int, name: str) -> None:
        manager = self.manager
        if manager.dump_dir is None:
            return
        self.positions = {}
        text = print_module(self.module, positions=self.positions)
        self.path = manager.dump_dir / f"{manager.dump_prefix}.{number:02}.{name}.mlir"
        header = f"{HEADER}{pipeline_text(manager.passes[number:])}".rstrip()
        try:
            manager.dump_dir.mkdir(parents=True, exist_ok=True)
            self.path.write_text(f"{header}\n{text}")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None

    def place(self, error: CompileError) -> None:
        """Point an error at its op's line in the dump from before the pass."""
        if error.op in self.positions and self.path is not None:
            line, column = self.positions[error.op]
            error.position = FileLoc(str(self.path), line + 1, column)
