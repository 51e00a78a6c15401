"""The shipped sets, read once."""

import functools

from bertkeras.datasets.readers import types_of
from bertkeras.datasets.shipped import SPLITS, TASKS, load_shipped

# What the texts of a set are called, and the real set of the same task that they are judged beside
KINDS = {
    "english-reviews": {"reviews": "uci"},
    "chinese-reviews": {"reviews": "asap"},
    "support-tickets": {"tickets": "goemotions"},
    "english-entities": {"sentences": "uner-en"},
    "chinese-entities": {"sentences": "uner-zh"},
    "passages": {"passages": "squad-passages", "questions": "squad-questions"},
    "entailment": {"premises": "snli-premises", "hypotheses": "snli-hypotheses"},
}
FIELDS = {"passages": "context", "questions": "question", "hypotheses": "pair"}  # of the others: text


def language(name):
    return "zh" if name.startswith("chinese") else "en"


def joined(tokens, language):
    """A sentence from its words."""
    return ("" if language == "zh" else " ").join(tokens)


@functools.cache
def examples(name, split=None):
    """The examples of a split, or of all of them."""
    return tuple(example for part in ([split] if split else SPLITS) for example in load_shipped(name, part))


def places(name):
    """Where each of `examples(name)` stands: its split and its line."""
    return [f"{split}:{example.line}" for split in SPLITS for example in examples(name, split)]


def texts(name, kind, split=None):
    """The texts of one kind, each premise and each passage once."""
    found = examples(name, split)
    if TASKS[name] == "entities":
        return [joined(example.tokens, language(name)) for example in found]
    read = [getattr(example, FIELDS.get(kind, "text")) for example in found]
    return list(dict.fromkeys(read)) if kind in ("passages", "premises") else read


def label_names(name):
    """The labels of a set, or its types of entities, in alphabetical order."""
    found = examples(name)
    if TASKS[name] == "entities":
        return types_of(found)
    if TASKS[name] == "multi-label":
        return sorted({label for example in found for label in example.label})
    return sorted({example.label for example in found})
