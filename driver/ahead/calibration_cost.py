"""What the choice of codes takes before weights are written."""

from __future__ import annotations

from math import prod

from driver.ahead.feedback_cost import feedback_cost
from driver.ahead.run_cost import Run, RunCost, Step, seconds_of
from driver.calibration.calibrate import method_of, shape_of_tokens
from driver.calibration.running import Running
from driver.job import Job
from frontend.calibration import BATCH_TOKENS
from frontend.config import ModelConfig


def calibration_cost(job: Job, config: ModelConfig) -> RunCost:
    method = method_of(job)
    if method == "none" or (method == "search" and job.importance):  # which bits by a budget took
        return RunCost()
    running = Running(job, config)
    build = Step(seconds_of(lambda: running.native, 1))
    tokens = prod(shape_of_tokens(running, method))
    run = Run.of(job, tokens, -(-tokens // BATCH_TOKENS))
    more = feedback_cost(job, run) if method == "gptq" else RunCost(run.steps, run.memory)
    return RunCost((build, *more.steps), more.memory)
