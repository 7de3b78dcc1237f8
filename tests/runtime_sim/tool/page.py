"""What a page of `timing` holds."""

from __future__ import annotations

import json
import re


def page_data(path):
    """What the page draws."""
    found = re.search(r"^const DATA = (.*);$", path.read_text(), re.MULTILINE)
    assert "<" not in found[1]
    return json.loads(found[1])
