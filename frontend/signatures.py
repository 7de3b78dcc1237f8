"""The nets that clients run a causal language model by, each a `bm.net` for its function.

Clients find nets by name, and inputs and outputs by position; names of the latter are for people.
Source: Sophgo's LLM-TPU programs, and the files that tpu-mlir makes for them.
"""

from __future__ import annotations

from compiler import client_nets
from dialects.nets import NetAttr, NetInput, NetOutput

IDS = NetInput("input_ids", tokens=1)  # [1, tokens] i32
STATES = NetInput("input_states", tokens=1)  # [1, tokens, hidden]
POSITIONS = NetInput("position_ids", tokens=1, kept="run")  # [streams, tokens] i32
MASK = NetInput("attention_mask", tokens=2, kept="run")  # [1, 1, tokens, what they may see]
HISTORY = (NetInput("history_k", kept="session"), NetInput("history_v", kept="session"))  # [1, S, heads, D]
STATES_OUT = NetOutput("output_states", tokens=1)
CACHES = (NetOutput("k_cache", tokens=1), NetOutput("v_cache", tokens=1))  # [1, tokens, heads, D]

EMBEDDING = NetAttr(client_nets.EMBEDDING, inputs=(IDS,), outputs=(STATES_OUT,))
EMBEDDING_CACHE = NetAttr(client_nets.EMBEDDING_CACHE, inputs=(IDS,), outputs=(STATES_OUT,))
BLOCK = NetAttr(client_nets.BLOCK, "layer", True, (STATES, POSITIONS, MASK), (STATES_OUT, *CACHES))
BLOCK_CACHE = NetAttr(client_nets.BLOCK_CACHE, "layer", True, (*BLOCK.inputs, *HISTORY), BLOCK.outputs)
# Of one token: hidden [1, hidden] to [1, 1] i32.
HIDDEN, TOKEN = NetInput("hidden_states"), NetOutput("token_id")
LM_HEAD = NetAttr(client_nets.LM_HEAD, inputs=(HIDDEN,), outputs=(TOKEN,))

# With --do_sample the head gives logits [1, V] f32, and one of two nets takes them. Clients copy them from
# its output and write the other inputs when they please, so nothing else may work there. Of tokens that were,
# a client gives as many as there are; the rest of [1, S] i32 is 0, or what it was. penalty, temperature and
# top_p are [1] f32, top_k is [1] i32; candidates are [1, 50], the most likely first.
LM_HEAD_LOGITS = NetAttr(client_nets.LM_HEAD, inputs=(HIDDEN,), outputs=(NetOutput("logits"),))
LOGITS = NetInput("m_logits", kept="session")
GREEDY_HEAD = NetAttr(client_nets.GREEDY_HEAD, inputs=(LOGITS,), outputs=(TOKEN,))
SETTINGS = ("input_ids", "penalty", "temperature", "top_k", "top_p")
SAMPLE_HEAD = NetAttr(
    client_nets.SAMPLE_HEAD,
    flexible=True,  # its ids are as many as there are
    inputs=(LOGITS, *(NetInput(name, kept="session") for name in SETTINGS)),
    outputs=(NetOutput("probabilities"), NetOutput("token_idx")),
)

# A tower for pictures of any size: input_states [P, numbers of a patch] f32, in the order of windows where it
# has some; position_ids [P, 2] i32, row and column; masks [1, 1, P, P] f32; reverse_index [P / 4] i32, which
# undoes the order of features. One for pictures of one size: pixel_value [1, 3, H, W] f32. Both give features
# [N, hidden].
ROWS = (NetInput("input_states", tokens=0), NetInput("position_ids", tokens=0))
FULL_MASK, WINDOW_MASK = (NetInput(f"{which}_attn_mask", tokens=2) for which in ("full", "window"))
REVERSE = NetInput("reverse_index")
FEATURES = (NetOutput("output_states", tokens=0),)
TOWER_OF_ROWS = NetAttr(client_nets.VIT, inputs=(*ROWS, FULL_MASK), outputs=FEATURES)
TOWER_OF_WINDOWS = NetAttr(client_nets.VIT, inputs=(*ROWS, FULL_MASK, WINDOW_MASK, REVERSE), outputs=FEATURES)
TOWER_OF_IMAGES = NetAttr(client_nets.VIT, inputs=(NetInput("pixel_value"),), outputs=FEATURES)
