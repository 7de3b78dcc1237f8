"""What -q and -g come to for a checkpoint: its own form, or what the user asks of one of floats."""

from __future__ import annotations

from dataclasses import replace

from compiler.diagnostics import UserError
from driver.options import AUTO, ConvertOptions
from frontend.sources.form import Form


def resolved(options: ConvertOptions, form: Form) -> ConvertOptions:
    """The options with a mode and a group. Weights that are codes already stay as they are, and so do those
    that their quantizer left in 16 bits: only their type is asked for. UserError where more is.
    """
    if form.bits:
        return _as_stored(options, form)
    if options.quantize != AUTO:
        return options
    return replace(options, quantize=form.half if form.floats is None else f"w{form.floats}{form.half}")


def _as_stored(options: ConvertOptions, form: Form) -> ConvertOptions:
    mode = options.quantize
    if mode == AUTO:
        mode = f"w{form.bits[0]}{form.half}"
    elif options.weight_bits not in form.bits:
        known = " or ".join(f"-q w{bits}{options.half}" for bits in form.bits)
        raise _told(options, f"-q {mode}", f"of {_listed(form.bits)} bits", known)
    if options.q_group_size not in (None, *form.groups):
        known = " or ".join(f"-g {group}" for group in form.groups)
        raise _told(options, f"-g {options.q_group_size}", f"in groups of {_listed(form.groups)}", known)
    if options.symmetric:
        raise _told(options, "--symmetric", "with zero points or without as they are")
    return replace(options, quantize=mode, q_group_size=form.groups[0], as_stored=form.floats is None)


def _told(options: ConvertOptions, flag: str, how: str, instead: str = "") -> UserError:
    advice = f"give {instead}, or leave it out" if instead else "leave it out"
    return UserError(f"{flag}: the weights of {options.model_path} are codes already, {how}\n{advice}")


def _listed(numbers: tuple[int, ...]) -> str:
    return " and ".join(map(str, numbers))
