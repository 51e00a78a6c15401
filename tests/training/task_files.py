"""Labelled files that a BERT with random weights learns in seconds, and such a BERT."""

import json

import keras
import numpy as np

from bertkeras.config import BertConfig
from bertkeras.models import BertPretrainer
from bertkeras.text import WordPieceTokenizer

FILLERS = ["it", "was", "so", "very", "much", "a", "the", "of", "thing", "they", "had", "there"]
MOODS = {"good": ["fine", "lovely", "great"], "bad": ["dull", "awful", "sad"], "odd": ["strange", "weird", "queer"]}
COLOURS = {
    "red": ["crimson", "scarlet", "ruby"],
    "blue": ["azure", "navy", "cobalt"],
    "green": ["lime", "olive", "jade"],
}
NAMES = ["ada", "bob", "eve", "kim", "max", "zoe"]
PLACES = ["rome", "oslo", "lima", "bonn", "york", "bern"]
MARKS = ["mr", "in", "?", ".", "<", ">", "&", "who", "where", "is", "yes", "no"]


def words():
    groups = [FILLERS, NAMES, PLACES, MARKS, *MOODS.values(), *COLOURS.values(), MOODS, COLOURS]
    return list(dict.fromkeys(word for group in groups for word in group))


def write_preset(folder, seed=0):
    """A BERT of one block with random weights that knows every word above."""
    keras.utils.set_random_seed(seed)
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words(), "##s"])
    sizes = {"num_layers": 1, "hidden_dim": 32, "num_heads": 4, "intermediate_dim": 64, "max_sequence_length": 40}
    options = {"dropout": 0.0, "attention_dropout": 0.0, "initializer_range": 0.1, "norm_first": True}
    config = BertConfig(vocabulary_size=tokenizer.vocabulary_size, **sizes, **options)
    BertPretrainer(config, tokenizer=tokenizer).save_to_preset(folder)
    return folder


def some(rng, group, count=1):
    return [str(word) for word in rng.choice(group, count)]


def shuffled(rng, *groups):
    return " ".join(rng.permutation([word for group in groups for word in group]))


def classification(rng):
    label = str(rng.choice(list(MOODS)))
    return {"text": shuffled(rng, some(rng, FILLERS, 5), some(rng, MOODS[label])), "label": label}


def pairs(rng):
    """The mood of the second text; the first has one too."""
    moods = some(rng, ["good", "bad"], 2)
    one, two = (shuffled(rng, some(rng, FILLERS, 2), some(rng, MOODS[mood])) for mood in moods)
    return {"text": one, "pair": two, "label": moods[1]}


def multi_label(rng):
    labels = [name for name in COLOURS if rng.random() < 0.4]
    return {
        "text": shuffled(rng, some(rng, FILLERS, 4), *(some(rng, COLOURS[name]) for name in labels)),
        "label": labels,
    }


def regression(rng):
    good, bad = rng.integers(0, 3, 2)
    text = shuffled(rng, some(rng, FILLERS, 3), some(rng, MOODS["good"], good), some(rng, MOODS["bad"], bad))
    return {"text": text, "label": float(3 + good - bad)}


def similarity(rng):
    """On a scale of 0 to 5: 5 for two colours of one kind."""
    names = some(rng, list(COLOURS), 2)
    one, two = (shuffled(rng, some(rng, FILLERS, 2), some(rng, COLOURS[name], 2)) for name in names)
    return {"text": one, "pair": two, "label": 5.0 if names[0] == names[1] else 0.0}


def entities(rng):
    """The same words are persons after `mr` and places after `in`, and nothing elsewhere."""
    tokens, tags = some(rng, FILLERS, 2), ["O", "O"]
    for _ in range(rng.integers(1, 4)):
        mark, type = [("mr", "who"), ("in", "where"), ("is", None)][rng.integers(3)]
        length = int(rng.integers(1, 3))
        tokens += [mark, *some(rng, NAMES + PLACES, length), *some(rng, FILLERS)]
        tags += ["O", *(["O"] * length if type is None else [f"B-{type}", f"I-{type}"][:length]), "O"]
    return {"tokens": tokens, "tags": tags}


def question_answering(rng):
    """`who ?` asks for the name in the text and `where ?` for the place; half of the texts lack what is asked for."""
    asks_who = rng.random() < 0.5
    name, place = some(rng, NAMES), some(rng, PLACES)
    missing = rng.random() < 0.4
    parts = [] if missing and asks_who else name
    parts = parts + ([] if missing and not asks_who else place)
    context = shuffled(rng, some(rng, FILLERS, 4), parts)
    answer = (name if asks_who else place)[0]
    answers = [] if missing else [{"text": answer, "answer_start": f" {context} ".index(f" {answer} ")}]
    return {"question": "who ?" if asks_who else "where ?", "context": context, "answers": answers}


def generation(rng):
    """The names of the text."""
    names = some(rng, NAMES, 2)
    return {"text": " ".join([*some(rng, FILLERS), names[0], *some(rng, FILLERS), names[1]]), "pair": " ".join(names)}


DRAWN = {
    "classification": classification,
    "pairs": pairs,
    "multi-label": multi_label,
    "regression": regression,
    "similarity": similarity,
    "entities": entities,
    "question-answering": question_answering,
    "generation": generation,
}


def write_file(path, kind, count, seed):
    """Draw a file of JSON lines."""
    rng = np.random.default_rng([seed, *kind.encode()])
    lines = [json.dumps(DRAWN[kind](rng)) for _ in range(count)]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)
