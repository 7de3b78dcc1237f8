"""The places where transformers lets us in: attention, masks, experts and the key-value cache.

Each is registered under our own name, which the model's configuration then asks for; so attention is one
node of the graph whatever the architecture, and the mask is known by its function rather than by a claim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import frontend.library  # noqa: F401

import torch
from transformers.cache_utils import Cache
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from frontend.experts import experts
from frontend.masks import CHUNKS, WINDOW
from frontend.trace import Recorder, Traced

ATTENTION_NAME = EXPERTS_NAME = "traced"

# Masks are compared in pieces of this many rows, which bounds the memory for long sequences.
ROWS_AT_ONCE = 512

# Keywords that say nothing about the result: dropout is off in evaluation, and the mask is the truth about
# windows (a model may pass a window to layers that do not use it).
IGNORED_KEYWORDS = frozenset(
    {
        "dropout",
        "is_causal",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "sliding_window",
        "use_cache",
    }
)
# The bounds of segments of keys are those of the queries, and how long they are at most.
OF_SEGMENTS = frozenset({"cu_seq_lens_k", "max_length_q", "max_length_k"})


def attention(
    module: torch.nn.Module,
    query: Traced,
    key: Traced,
    value: Traced,
    attention_mask: Traced | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Traced | None = None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Record one llm.attention; q [1, Hq, S, D], k [1, Hkv, T, D], v [1, Hkv, T, Dv] -> [1, S, Hq, Dv]."""
    recorder = query.recorder
    if recorder.segments is not None:
        attention_mask = recorder.segments.mask_for(keywords.pop("cu_seq_lens_q", None))
        keywords = {name: given for name, given in keywords.items() if name not in OF_SEGMENTS}
    for name, given in keywords.items():
        if given is not None and name not in IGNORED_KEYWORDS:
            raise recorder.refuse(f"attention has a keyword {name!r} that is not understood")
    if attention_mask is None and (recorder.cache is not None or getattr(module, "is_causal", False)):
        raise recorder.refuse("attention without a mask: a decoder hides later tokens")
    _, heads, tokens, head_size = query.shape
    if scaling is None:
        scaling = head_size**-0.5
    if recorder.cache is not None:
        key, value = recorder.cache.attended(key, value)
    result = torch.empty((1, tokens, heads, value.shape[-1]), dtype=query.dtype, device="meta")
    kwargs = {
        "mask": attention_mask,
        "sinks": s_aux,
        "scale": float(scaling),
        "softcap": float(softcap or 0),
        "shown": "full" if attention_mask is None else kind_of(attention_mask),
    }
    return recorder.record("llm.attention", (query, key, value), kwargs, result), None


def mask(
    q_length: int,
    kv_length: int,
    mask_function: Any,
    attention_mask: torch.Tensor | None = None,
    **_keywords: Any,
) -> Traced | None:
    """Record an llm.mask that carries its kind, found by evaluating the function on all positions."""
    recorder = Recorder.current
    assert recorder is not None, "a traced model is run outside of a recording"
    if attention_mask is not None and not bool(attention_mask.all()):
        raise recorder.refuse("the model hides tokens by an attention mask of its own")
    # The function is that of the whole sequence, so one token with its history tells nothing new.
    kind = mask_kind(mask_function, kv_length) if q_length == kv_length else "decode"
    if kind == "full" and recorder.cache is None:
        return None  # of a tower, whose patches all see each other
    meta = torch.empty((1, 1, q_length, kv_length), device="meta")
    traced: Traced = recorder.record("llm.mask", (kind,), {}, meta)
    return traced


def kind_of(mask: Traced) -> str:
    """The kind of a mask as it was made, or came into a layer; "custom" of one that was computed with."""
    node = mask.value.node
    return str(node.args[-1]) if node.name in ("input", "llm.mask") else "custom"


def mask_kind(mask_function: Any, length: int) -> str:
    """What the function is for `length` positions: "causal", "full", "sliding window of n", "chunks of n" or
    "custom".
    """
    position = torch.arange(length)
    sees_first = visible(mask_function, position, position[:1])[:, 0]
    size = int(sees_first.int().argmin()) or length  # the first query that does not see key 0
    kinds: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "causal": lambda query: position <= query,
        "full": lambda query: torch.ones(len(query), length, dtype=torch.bool),
        f"{WINDOW}{size}": lambda query: (position <= query) & (position > query - size),
        f"{CHUNKS}{size}": lambda query: (position <= query) & (position // size == query // size),
    }

    def shows(shape: Callable[[torch.Tensor], torch.Tensor]) -> bool:
        """Whether the function is this one; a few rows tell of most that it is not."""
        pieces = (position[start : start + ROWS_AT_ONCE] for start in range(0, length, ROWS_AT_ONCE))
        return all(
            torch.equal(visible(mask_function, rows, position), shape(rows[:, None])) for rows in pieces
        )

    return next((kind for kind, shape in kinds.items() if shows(shape)), "custom")


def visible(mask_function: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """[queries, keys] bool: whether each query position sees each key position."""
    zero = torch.zeros((), dtype=torch.int64)
    seen = torch.as_tensor(mask_function(zero, zero, query[:, None], key[None, :]))
    return torch.broadcast_to(seen, (len(query), len(key)))


class RecordingCache(Cache):
    """Collects the keys and values of the layer being recorded, with `history` tokens before them.

    What a client keeps is what attention reads. Some layers keep something smaller, of which they make keys
    and values token by token (latents of several heads): of such a `late` layer, the history is appended to
    what attention is given.
    """

    def __init__(self, history: int) -> None:
        super().__init__(layers=[])
        self.history = history
        self.late = False
        self.new: list[tuple[Traced, Traced]] = []

    def begin(self, late: bool) -> None:
        """Before the code of a layer runs."""
        self.late = late
        self.new.clear()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.history

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.history

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.history + query_length, 0

    def update(
        self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        self.new.append((key_states, value_states))
        if not self.history or self.late:
            return key_states, value_states
        return self._append_both(key_states, value_states)

    def attended(self, key: Traced, value: Traced) -> tuple[Traced, Traced]:
        """What attention reads, which is given these; in a prefill they tell whether the layer is late."""
        if not self.new or (self.history and not self.late):
            return key, value
        kept = [each.read() for each in self.new[-1]]
        self.late = self.late or [key.read(), value.read()] != kept
        self.new[-1] = key, value
        return self._append_both(key, value) if self.history else (key, value)

    def _append_both(self, key: Any, value: Any) -> tuple[Traced, Traced]:
        return self._append(key, "history_k"), self._append(value, "history_v")

    def _refuse(self, *_args: Any, **_kwargs: Any) -> Any:
        """State other than keys and values: convolutions, recurrences, indexers."""
        assert Recorder.current is not None
        raise Recorder.current.refuse("a layer keeps state that is not keys and values of attention")

    has_previous_state = get_conv_state = get_recurrent_state = _refuse
    update_conv_state = update_recurrent_state = update_indexer = _refuse

    def _append(self, new: Traced, name: str) -> Traced:
        recorder = new.recorder
        batch, heads, tokens, width = new.shape
        history = recorder.input((batch, heads, self.history, width), new.dtype, name)
        result = torch.empty((batch, heads, self.history + tokens, width), dtype=new.dtype, device="meta")
        joined: Traced = recorder.record("llm.kv_concat", (history, new), {}, result)
        return joined


ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, mask)
ALL_EXPERTS_FUNCTIONS.register(EXPERTS_NAME, experts)
