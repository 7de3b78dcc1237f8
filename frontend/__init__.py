"""From a checkpoint folder to the llm dialect: config, tensors, tracing, import."""
