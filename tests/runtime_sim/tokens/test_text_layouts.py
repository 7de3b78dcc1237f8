"""The ids of chat beside those of transformers, on the layouts of published models."""

import pytest

from runtime_sim.tokens.text import Text
from tests.runtime_sim.tokens.layouts import LAYOUTS, Layout

pytestmark = pytest.mark.usefixtures("forked_tokenizers")

transformers = pytest.importorskip("transformers")

PHRASES = [
    "Hello — naïve 日本語 🙂 world,  two spaces",
    "  leading, trailing\n\n and cafe\u0301 ",
    "a</s> b<|im_end|> c <|end|>  d<eos>",
    "I do n't , it 's ' two ' I 've . Hello !",
]


@pytest.fixture(params=LAYOUTS.items(), ids=LAYOUTS.keys())
def case(request, tmp_path):
    layout: Layout = request.param[1]
    layout.write(tmp_path)
    return layout, Text(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)


def test_ids_and_text_are_those_of_transformers(case):
    layout, ours, theirs = case
    for phrase in PHRASES:
        plain = ours.encode(phrase)
        assert plain == theirs.encode(phrase)
        if theirs.chat_template:
            chat = [{"role": "user", "content": phrase}]
            wanted = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            assert ours.encode_chat(phrase) == wanted
        assert "".join(ours.decode_stream(plain)) == theirs.decode(plain, skip_special_tokens=True)
    assert (theirs.convert_ids_to_tokens(plain[0]) == layout.first) == (layout.first is not None)
    assert ours.stop_ids() == {theirs.convert_tokens_to_ids(word) for word in layout.ends}
