"""Ask a compiled model about a long text, and hold each token of the answer to Hugging Face in float32.

python bench/long_prompt.py BMODEL MODEL [COUNT]

The text has some 1,500 tokens for SmolLM2, so BMODEL wants -s 2048; MODEL is what it was compiled from. A
token is tied where the reference has another one ahead by less than rounding to 16 bits may change.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime_sim.tokens.text import Text
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.reference import Reference

TIE = 0.05  # of the logits' standard deviation, as in verify
DAYS = 30
TRAVELLERS = (
    ("Anna", "carpenter", "Oslo", "red"),
    ("Boris", "baker", "Lyon", "green"),
    ("Clara", "pilot", "Quito", "blue"),
    ("David", "painter", "Kyoto", "yellow"),
    ("Elena", "doctor", "Porto", "white"),
    ("Felix", "sailor", "Cork", "black"),
    ("Greta", "teacher", "Turin", "orange"),
)
WEATHER = (
    "It rained in the morning and the sun came out after lunch.",
    "A cold wind blew from the north all day long.",
    "The river was high and the old bridge was closed.",
    "Snow covered the roofs and the children built a tower of it.",
)
QUESTION = "What is the job of Clara, and from which city did she come back?"


def main(bmodel: Path, model: Path, count: str = "16") -> None:
    start, text = time.process_time(), Text(model)
    prompt = text.encode_chat(f"{diary()} {QUESTION}")
    session = open_session(bmodel, bmodel.parent / "config", exact=False)
    answer = list(islice(session.stream(prompt), int(count)))
    seconds = time.process_time() - start
    print(f"{len(prompt)} tokens, and {len(answer)} of an answer in {seconds:.0f} s of CPU")
    print("".join(text.decode_stream(answer)))
    fed = [*prompt, *answer[:-1]]
    logits = Reference(model).trace(fed, range(len(prompt) - 1, len(fed))).logits
    gaps = (logits.max(axis=1) - logits[range(len(answer)), answer]) / logits.std(axis=1)
    tied = int(((gaps > 0) & (gaps < TIE)).sum())
    print(f"{int((gaps == 0).sum())} tokens as Hugging Face, {tied} tied; widest gap {gaps.max():.4f}")
    if (gaps >= TIE).any():
        raise SystemExit("the answer is another")


def diary() -> str:
    """What happened in a village, day by day."""
    lines = ["The people of the village keep a diary. Every day somebody writes down what happened."]
    for day in range(DAYS):
        name, job, city, color = TRAVELLERS[day % len(TRAVELLERS)]
        lines.append(
            f"Day {day + 1}. {WEATHER[day % len(WEATHER)]} {name}, who works as a {job}, came back from "
            f"{city} with a {color} box, put it on the table, and told the others about the journey."
        )
    return " ".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
