"""The chat format: the template users load, and the same format as token ids with the mask that training needs."""

from transformers import PreTrainedTokenizerFast

from tools.pocket.item import Item

PAD, SYSTEM, USER, ASSISTANT, TOOL, END = (
    f"<|{name}|>" for name in ("pad", "system", "user", "assistant", "tool", "end")
)
SPECIAL = (PAD, SYSTEM, USER, ASSISTANT, TOOL, END)
# "\n" is always its own token, so a rendered prompt is a token prefix of the whole conversation.
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def render(messages: list[dict[str, str]]) -> str:
    """What the template gives, without the cost of Jinja; a test holds the two together."""
    return "".join(f"<|{message['role']}|>\n{message['content']}{END}\n" for message in messages)


def prompt_text(item: Item) -> str:
    return render(item.prompt) + f"{ASSISTANT}\n"


def encode(tokenizer: PreTrainedTokenizerFast, items: list[Item]) -> list[tuple[list[int], list[bool]]]:
    """Token ids and, for each, whether it is something the assistant says."""
    assistant, end = tokenizer.convert_tokens_to_ids([ASSISTANT, END])
    texts = [render(list(item.messages)) for item in items]
    return [(ids, spoken(ids, assistant, end)) for ids in tokenizer(texts)["input_ids"]]


def spoken(ids: list[int], assistant: int, end: int) -> list[bool]:
    mask, inside = [], -1  # -1 outside, 0 at the newline after the role, 1 within what is said
    for token in ids:
        mask.append(inside == 1)
        if token == assistant:
            inside = 0
        elif token == end:
            inside = -1
        elif inside == 0:
            inside = 1
    return mask
