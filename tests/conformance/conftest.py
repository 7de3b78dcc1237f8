"""Conformance tests need the vendor's libraries: fetched once, and loudly missed when they cannot be had."""

import pytest

from tests.conformance.vendor_runtime import VendorUnavailable, libraries_for

_unavailable: list[str] = []


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
