"""What the choice of codes takes before weights are written."""

from __future__ import annotations

from math import prod

from driver.ahead.feedback_cost import dividing, feedback_cost
from driver.ahead.run_cost import Run, RunCost, Step, seconds_of
from driver.calibration.calibrate import method_of, shape_of_tokens
from driver.calibration.running import Running
from driver.job import Job
from frontend.calibration import BATCH_TOKENS
from frontend.config import ModelConfig


def calibration_cost(job: Job, config: ModelConfig) -> RunCost:
    method = method_of(job)
    if method == "none":
        return RunCost()
    running = Running(job, config)
    build = Step(seconds_of(lambda: running.native, 1))
    tokens = prod(shape_of_tokens(running, method))
    run = Run.of(job, tokens, -(-tokens // BATCH_TOKENS))
    if method == "gptq":
        more = feedback_cost(job, run)
        return RunCost((build, *more.steps), more.memory)
    if job.importance:  # which the choice of bits by a budget took
        return RunCost((*dividing(job, run),))
    return RunCost((build, *run.steps, *dividing(job, run)), run.memory)
