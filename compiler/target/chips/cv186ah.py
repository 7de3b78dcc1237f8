"""CV186AH: the vendor's tools give it BM1688's numbers and one core; its own clocks are not published."""

from __future__ import annotations

import dataclasses

from compiler.target.chips.bm1688 import BM1688

CV186AH = dataclasses.replace(BM1688, name="cv186ah", chip="CV186X", cores=1, aliases=("cv186x",))
