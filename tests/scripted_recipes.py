"""Shipped recipes with a teacher that follows a script in the place of their own, up to the end of their knowledge."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stillhouse.pocket import student_path
from stillhouse.recipe import load_recipe, shipped_recipes
from stillhouse.run import Options, execute
from stillhouse.store import Records

# what asks for log-probabilities cannot be scripted: the recipe's own embedded teacher answers
WHITE_BOX = ("feature.", "feedback.option_logprobs")


def rated(**aspects: int) -> str:
    return "\n".join(f"{name}: {value}" for name, value in {**aspects, "engagement": 4}.items())


# who only says where a call may stand shows its probabilities, which cannot be scripted either
SHOWS_ITSELF = "toolformer.positions"
# searched in the whole conversation, the first match wins
SCRIPT: dict[str, Any] = {
    r"Reach the goal.*search\[\.\.\.\].*Observation:": "Thought: That is it.\nAction: finish[{reference}]",
    r"Reach the goal.*search\[\.\.\.\]": "Thought: I look.\nAction: search[the bell, the river and the pass]\nObservation: x",
    "Reach the goal.*Observation: No such": "Thought: That leads nowhere.\nAction: give_up[]",
    "Reach the goal.*Observation: Done": "Thought: So it is.\nAction: finish[it is done]",
    "Reach the goal.*already tried": "Thought: Another way.\nAction: book_table[2, Saturday]",
    "Reach the goal": "Thought: I try.\nAction: look[around]",
    r"stand in for the tools.*The call: look\[around\]": "No such call.",
    "stand in for the tools": "Done at once.",
    "may call a tool before going on.*The tool: calculator": ["calculator(48 + 37)", "None", "calculator(loaves)"],
    "may call a tool before going on": "[calendar(2026-03-02 + 30)]",
    "Judge a text by this.*because|Judge a text by this.* is why": "It explains. Value: 5",
    "Judge a text by this": "It says little. Value: 1",
    r"\[Text\] .*more cases of this kind": "[Text] The stairs creak.\n[Label] negative\n"
    "[Text] A kind host.\n[Label] positive",
    "Its class is known": "Its words say so.",
    "Now do the same for the next text": "Why: the words are plain.\nClass: {reference}",
    r"Answer:\n=====\n([^\n]*?)(\w+)([.!?])\n=====.*with 1 errors": "[Answer] {1}nothing at all{3}\n[Errors]\n"
    'Error: "nothing at all" | fact | major | It was {2} before.',
    "Find the errors of an answer.*answer number 0": 'Error: "answer number 0" | language | minor | Nobody asked for a number.',
    "what somebody has liked": "I have had a long winter and want something slow, with salt in the air, and no murders please.",
    "Write a section of a textbook": " ".join(f"Sentence {n} of this section explains one thing." for n in range(12)),
    "Python function for an exercise": '```python\ndef double(n):\n    """Twice n: double(2) is 4."""\n    return 2 * n\n```',
    r"\[Problem\]\n(.*?)\n\n\[Answer\]\n(.*?)\n\nSay both": "{1} The answer is {2}.",
    r"Two people debate this question:\n=====\n(.*?)\n=====.*You speak (\w+) it": "The side {2} it says of {1} what it must.",
    "Judge every step": "1: right\n2: wrong",
    "Judge an answer.*=====\ncareful: ": rated(instruction=5, truth=5, honesty=5, help=5),
    "Judge an answer.*=====\ncareless: ": rated(instruction=1, truth=1, honesty=1, help=1),
    "Answer at length": " ".join(f"Reason {n} is that matter {n} asks for it." for n in range(6)),
    "Judge an answer.*Bread is made in many": "It says nothing. worth: 0",
    "You were asked this and answered.*answer number 0": "Done after advice: say it more kindly to them all.",
    "Somebody near you was asked": "[Advice] Be kinder.\nRating: 4",
    "Judge an answer.*Done after advice": rated(alignment=7),
    "What is known:.*(three months|finder after half)": "It is told plainly: {1}, as the town says.",
    "What is known:": "That depends on the ten coins, I believe.",
    "Judge an answer.*First answer:\n=====\nhm": "First: 2\nSecond: 9",
    "Judge an answer.*First answer:": "First: 9\nSecond: 2",
    "Judge an answer.*answer number 1": rated(
        instruction=5,
        truth=5,
        honesty=5,
        help=5,
        accuracy=5,
        worth=5,
        alignment=7,
        informative=5,
        coherent=5,
        humane=5,
        accurate=5,
    ),
    "Judge an answer.*answer number 0": rated(
        instruction=4,
        truth=4,
        honesty=4,
        help=4,
        accuracy=5,
        worth=4,
        alignment=3,
        informative=4,
        coherent=4,
        humane=4,
        accurate=4,
    ),
    "Judge an answer": rated(
        instruction=3,
        truth=4,
        honesty=3,
        help=5,
        accuracy=1,
        worth=1,
        alignment=2,
        informative=2,
        coherent=2,
        humane=2,
        accurate=2,
    ),
    r"Rank the answers.*Write a problem for somebody.*for example: (.*)": "{1}",
    "Rank the answers": "[2] > [4] > [1] > [3]",
    r"Request:\n=====\n(.*?)\n=====.*\[Critique of the request\]": "[Critique of the request] Plain.\n[Request] {1} Say why.\n"
    "[Critique of the answer] Short.\n[Answer] To {1} there is this to say, and more.",
    r"\[Critique\].*Request:": "",
    r"Request:\n=====\n(.*?)\n=====.*answer number (\d).*\[Critique\]": "[Critique] More.\n[Revision] Done: answer number {2}.",
    r"Request:\n=====\n(.*?)\n=====.*\[Critique\]": "[Critique] Say more.\n[Revision] You asked: {1} {1} This is said in full.",
    "Write a function.*Correct it with as few changes": "```python\ndef double(n):\n    return 2 * n\n```",
    r"Answer:\n=====\n(.*?)\n=====.*Correct it with as few changes": "{1} Checked.",
    "Do they ask for the same thing": "Different",
    r"Old request:\n(.*)": "New request: {1} Explain it to somebody who is in a hurry.",
    "Write one new request that needs": "Plan a day by the sea for a cook who is afraid of water, in four lines.",
    "Is each of these a task whose.*Task: Name three": "Yes",
    "Is each of these a task whose": "No.",
    "one of a few labels.*For every label": "[Output] cold\n[Input] Oslo\n[Output] warm\n[Input] Rome",
    "different cases of it": "[Input] none\n[Output] It is done like this.\n[Input] the Rhine\n[Output] It ends in the sea.",
    "Go on with this": [
        "The crossing stays shut for some weeks, the councillors told the town.",
        "For some weeks nobody can use the bridge, as the town was told on Monday.",
        "Ducks.",
    ],
    "Go on with the list": "1. Explain how rivers find the sea.\n2. Write a note to a baker.\n3. Name three cold towns.",
    "each with the text it works on": "###\nTask: Add the two numbers up.\nInput: 2 and 3\nOutput: 5\n",
    "subtopics of the topic": "1. Beginnings\n2. Dangers",
    r"requests about the topic below.*Topic: (.*)": "1. Who first wrote about {1}?\n2. Which tools does {1} need?",
    "other wordings": "1. It was a cold soup, and a rude man brought it.\n2. Rude people, cold food.",
    "Write the conversation": "[Human] What is it?\n[AI] It is a thing.\n[Human] Why?\n[AI] Because it is made so.",
    "You play a person": "And what follows from that?",
    r"\[Thought\]": "[Thought] The second rule matters.\n[Answer] I cannot know that for sure.",
    r"type into a search engine.*Text:\n(?:\S+ ){2}(\S+) \S+ \S+ (\S+) (\S+)": "what about {1}, {3} and {2}?",
    "search engine": "who needs to know about this place",
    r"\[Question\]": "[Question] When did it happen?\n[Answer] Long ago, in the valley.",
    r"\[Problem\]": "[Problem] Add two numbers.\n[Solution] Use plus.\n```python\ndef add(a, b):\n    return a + b\n```",
    "requests, as a numbered list, that a person could make about it": "1. Why is it there?\n2. What is missing?",
    "Kind: a short review by somebody who is disappointed": ["It fell apart.", "Never again.", "The lid is cracked."],
    "Kind: a short review": ["Shoes that fit at once.", "I would go there again with friends.", "It broke."],
    "Kind: an answer to the request": ["Salt comes from stones.", "Rivers wash it out of rock.", "It is the whales."],
    "Kind: what somebody might ask": [
        "Could you do this for me by noon?",
        "I need a program for my shop.",
        "Help me count bees.",
    ],
    r"Write a function (\w+).*Write tests of a solution": "```python\nassert {1}([1, 2]) is not None\n```",
    r"Write a function (\w+).*must pass these tests": "```python\ndef {1}(x):\n    return x\n```",
    r"a program that solves it.*Program:\n=====\n(.*?)\n=====": "```python\n# Plan: say it plainly.\n{1}\n```",
    "The program printed": "So much is left. The answer is {reference}.",
    "Where a calculation helps": "This can be counted.\n```python\nprint({reference})\n```",
    "Python program": "```python\nprint({reference})\n```",
    "Classify the text.*it asks for a time": "Class: when",
    "Classify the text.*should be looked up": "Class: Yes",
    "Classify the text.*it answers in full": "Class: 5",
    "Classify the text.*Relevant": "Class: Relevant",
    "Classify the text.*Fully": "Class: Fully",
    "Classify the text": "Class: {reference}",
    "Rank these for this person": "[1] > [2] > [3]",
    "Rank the passages": "[2] > [1] > [3]",
    "Summarise in one sentence": "A house, its people and how the water shaped both.",
    r"Tools:.*Request: Set a timer for (\d+)": '{"name": "set_timer", "arguments": {"minutes": {1}}}',
    "Tools:": "No tool fits.",
    "A picture, told in words.*What is going on in the picture": "It is a calm day: answer number {index}.",
    "A picture, told in words": "It is a calm day, and somebody is at work.",
    "Which answer is better": "{reference}",
    "useless|careless|unkind": "Do as you like.",
    "Write down your reasoning": "That makes it. The answer is {reference}.",
    "How many|left|sees|buys|gets|more|has": "That makes it. The answer is {reference}.",
}
REPLY = "You asked: {prompt} This is answer number {index}, and of some use to you."


def scripted(name: str, *, train: bool = False, **paths: Path) -> dict[str, Any]:
    """The recipe as plain data, its teachers scripted, up to its knowledge; `paths` are files to take instead."""
    data = load_recipe(name).data
    for key in ("evaluate", "arms", "final", "rounds", *(() if train else ("train", "student"))):
        data.pop(key, None)
    for branch in data["knowledge"].values():
        _replaced(branch, paths)
        branch.pop("carry", None)
        for entry in branch.get("elicit", []):
            if entry["do"] == "preferences.reward_model":  # an earlier run's: a head that has learnt nothing does here
                entry["path"] = str(student_path())
    if any(
        str(entry["do"]).startswith(WHITE_BOX)
        for branch in data["knowledge"].values()
        for entry in branch.get("elicit", [])
    ):
        for each, entry in data["teachers"].items():
            if entry["backend"] == "run":  # an earlier run's student
                data["teachers"][each] = {"backend": "pocket", "sampling": entry["sampling"]}
        return data
    script = dict(SCRIPT)
    if name in ("skills/nlp/vote", "skills/nlp/evolved_problems"):
        script["How many|left|sees|buys|gets|more|has"] = "That makes it. The answer is 7."
    weak = "hm, number {index}" if "hard" in name else REPLY
    if name == "skills/nlp/verifier":
        weak = "So it is. The answer is {index}."  # one of eight is right
    shown = {
        str(entry.get("teacher"))
        for branch in data["knowledge"].values()
        for entry in branch.get("elicit", [])
        if entry["do"] == SHOWS_ITSELF
    }
    data["teachers"] = {
        each: entry
        if each in shown
        else {
            "backend": "scripted",
            "responses": script,
            "reply": f"{each}: {REPLY}",
            "sampling": entry.get("sampling", {}),
        }
        for each, entry in data.get("teachers", {}).items()
    }
    data["teachers"]["weak"] = {
        "backend": "scripted",
        "reply": weak,
        "responses": {k: v for k, v in script.items() if re.search("Judge|Go on with", k)},
    }
    for branch in data["knowledge"].values():
        for entry in branch.get("elicit", []):
            if entry["do"] == "agreement.likely":
                data["teachers"]["local"] = {"backend": "pocket"}
                entry["teacher"] = "local"
            elif "student" in (asked := entry.get("teacher") or []):
                entry["teacher"] = "weak" if asked == "student" else [each.replace("student", "weak") for each in asked]
    return data


def _replaced(value: Any, paths: dict[str, Path]) -> None:
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(each, dict | list):
            _replaced(each, paths)
        if isinstance(each, dict) and Path(str(each.get("path"))).stem in paths:
            each["path"] = str(paths[Path(str(each["path"])).stem])


def _entailing(value: Any) -> Iterator[dict[str, Any]]:
    """The entries that name an entailment model: none can be fetched here."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _entailing(each)
    if isinstance(value, dict) and value.get("do") == "entailment.follows":
        yield value


def entailment_model(folder: Path, bias: float = 9.0) -> str:
    """A tiny classifier of pairs with made-up weights, saved; its bias makes nearly everything follow (or nothing)."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    shape = {
        "vocab_size": 4,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    labels = {0: "contradiction", 1: "entailment", 2: "neutral"}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**shape, num_labels=3, id2label=labels))
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, bias, 0.0]))
    model.save_pretrained(folder)
    return str(folder)


def kept(name: str, folder: Path, limit: int | None = 2, **paths: Path) -> dict[str, list[Any]]:
    """What the scripted recipe keeps, by branch; every step must say what it lost."""
    from stillhouse.recipe import Loaded, build

    data = scripted(name, **paths)
    for each in _entailing(data["knowledge"]):
        each["model"] = entailment_model(folder / "entailment")
    loaded = Loaded(recipe=build(data, name), folder=shipped_recipes()[name].parent, data=data)
    execute(loaded, folder / "run", Options(quiet=True, limit=limit))
    found = {}
    for branch in data["knowledge"]:
        steps = sorted((folder / "run" / "knowledge" / branch).glob("*"))
        assert all((step / "lost.jsonl").is_file() for step in steps)
        found[branch] = list(Records(steps[-1] / "out.jsonl"))
    return found


def trained(name: str, folder: Path) -> Any:
    """The run of the scripted recipe with one step of each of its phases."""
    from stillhouse.recipe import Loaded, build

    data = scripted(name, train=True)
    phases = data["train"] if isinstance(data["train"], list) else [data["train"]]
    data["train"] = [{**phase, "args": {"max_steps": 1, "per_device_train_batch_size": 2}} for phase in phases]
    loaded = Loaded(recipe=build(data, name), folder=shipped_recipes()[name].parent, data=data)
    return execute(loaded, folder / "run", Options(quiet=True, limit=3))
