"""From a checkpoint folder to the llm dialect: config, tensors, tracing, import."""

from frontend.stand_ins import put_in_place

put_in_place()
