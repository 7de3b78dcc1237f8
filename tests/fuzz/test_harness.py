"""The harness sees each way in which a command can misbehave, and no other."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.fuzz.case import Case, Doubt, Wrong
from tests.fuzz.harness import Limits, run_case
from tests.fuzz.judge import judge, last_own_frame
from tests.fuzz.mutate import places, spoil_bytes, spoil_json, spoil_text

LIMITS = Limits(memory=1 << 28, cpu_seconds=1)


def wrong() -> None:
    raise Wrong("other bytes")


def doubtful() -> None:
    raise Doubt("is it?")


def outcome(case, folder):
    limits = replace(LIMITS, wall_seconds=1) if case.arguments == ["wait"] else LIMITS
    return judge(case, run_case(case, folder, limits)).kind


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("succeed", "right"),
        ("refuse", "refused"),
        ("note", "right"),
        ("raise_error", "traceback"),
        ("spin", "hang"),
        ("wait", "hang"),
        ("leave_a_child_behind", "right"),
        ("allocate", "memory"),
        ("die", "crash"),
        ("end_oddly", "crash"),
        ("fail_and_write", "written"),
        ("change_the_input", "written"),
        ("remove_the_input", "written"),
        ("leave_staging", "written"),
        ("talk", "message"),
        ("colour", "message"),
        ("fail_silently", "message"),
        ("warn", "message"),
    ],
)
def test_each_behaviour_has_its_outcome(forking, tmp_path, behaviour, kind):
    (tmp_path / "in").write_text("good")
    case = Case("", "tests.fuzz.misbehaving", [behaviour], results=("out",))
    assert forking.submit(outcome, case, tmp_path).result() == kind


@pytest.mark.parametrize(("check", "kind"), [(wrong, "wrong"), (doubtful, "look")])
def test_a_success_is_checked(forking, tmp_path, check, kind):
    case = Case("", "tests.fuzz.misbehaving", ["succeed"], results=("out",), check=check)
    assert forking.submit(outcome, case, tmp_path).result() == kind


def test_a_failure_is_not_checked(forking, tmp_path):
    case = Case("", "tests.fuzz.misbehaving", ["refuse"], check=wrong)
    assert forking.submit(outcome, case, tmp_path).result() == "refused"


def test_the_innermost_function_of_ours_names_a_traceback():
    try:
        from compiler.target.chips import chip

        chip(3)
    except Exception:
        import traceback

        text = traceback.format_exc()
    assert last_own_frame(text + "note: in pass x") == "AttributeError in compiler/target/chips/__init__.py:chip"


@pytest.mark.parametrize("spoil", [spoil_json, spoil_bytes, spoil_text])
def test_the_same_seed_spoils_in_the_same_way(spoil):
    good = {spoil_json: {"a": 1, "b": ["c"]}, spoil_bytes: b"some bytes", spoil_text: "some words\n"}[spoil]
    runs = [[spoil(Random(f"{seed}"), good) for seed in range(50)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len({str(spoilt) for spoilt, _ in runs[0]}) > 10


def test_places_are_all_values_of_a_document():
    assert [key for _, key in places({"a": [1, {"b": 2}]})] == ["a", 0, 1, "b"]
