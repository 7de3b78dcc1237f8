"""Conformance tests need the vendor's libraries: fetched once, and loudly missed when they cannot be had."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.vendor_runtime import VendorUnavailable, libraries_for

TARGETS: dict[str, dict[str, Any]] = {  # flags of llm_convert.py
    "bm1684x": {"chip": "bm1684x"},
    "cv186ah": {"chip": "cv186ah"},
    "bm1688": {"chip": "bm1688", "num_core": 1},
    "both_cores": {"chip": "bm1688"},
}

_unavailable: list[str] = []


@pytest.fixture(scope="session", params=["bm1684x", "both_cores"])
def target(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options that say what to compile for: each instruction set once, or the rows of TARGETS that a test names.

    One core's programs lower as those of two do, but for what these exchange: `test_models` runs them all.
    """
    return TARGETS[request.param]


@pytest.fixture(scope="session")
def vendor() -> None:
    """Ask for this in every test that runs the vendor's libraries."""
    if not _unavailable:
        try:
            libraries_for("BM1684X")
        except (VendorUnavailable, OSError) as error:
            _unavailable.append(str(error))
    if _unavailable:
        pytest.skip(f"no vendor libraries: {_unavailable[0]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in _unavailable:
        terminalreporter.section("NOTHING WAS COMPARED WITH THE VENDOR", red=True)
        terminalreporter.line(reason)
