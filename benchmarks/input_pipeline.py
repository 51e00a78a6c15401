"""Whether the pipeline keeps up: masking and pairing against a training step, masks counted, packed rows measured.

python -m benchmarks.input_pipeline
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.common import ROOT, machine, today, versions, write_section, write_text
from bertkeras import BertConfig, BertPretrainer, WordPieceTokenizer
from bertkeras.pipelines.documents import make_encoder, tokenised
from bertkeras.pipelines.layout import Layout
from bertkeras.pipelines.masking import Masking, default_max_predictions
from bertkeras.pipelines.prepare import blocks, prepare
from bertkeras.pipelines.pretraining import pretraining_dataset
from bertkeras.pipelines.sentence_pairs import DocumentBlock, RowOptions, make_rows
from bertkeras.text.corpus import Corpus
from bertkeras.training import AdamW, make_train_step

LENGTH, BATCH, VOCABULARY, READ_BATCHES = 128, 32, 8000, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds (default: 20)")
    parser.add_argument("--packages", nargs="+", help="documentation to read instead of the whole corpus")
    options = parser.parse_args()
    corpus = Corpus("installed-docs") if not options.packages else _documents(options.packages)
    tokenizer = WordPieceTokenizer.train(corpus, VOCABULARY)
    block = _one_block(corpus, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        record = measure(corpus, tokenizer, block, Path(folder), options.rounds)
    report(record)


def _documents(packages: list[str]) -> list[str]:
    from bertkeras.text.installed_docs import iter_installed_docs

    return list(iter_installed_docs(packages))


def _one_block(corpus: Corpus | list[str], tokenizer: WordPieceTokenizer) -> DocumentBlock:
    documents = tokenised(corpus, make_encoder(tokenizer, None))
    return next(block for part, _, block in blocks(documents, Layout(0, 1e-9, 2**22)) if part == "train")


def measure(
    corpus: Corpus | list[str], tokenizer: WordPieceTokenizer, block: DocumentBlock, folder: Path, rounds: int
) -> dict[str, float]:
    masking = Masking(
        tokenizer.vocabulary_size, tokenizer.mask_id, tokenizer.special_ids, default_max_predictions(LENGTH, 0.15)
    )
    prepared = prepare(corpus, tokenizer, folder / "prepared", RowOptions(LENGTH), passes=1)

    model = BertPretrainer(BertConfig.from_size("mini", 30_522, max_sequence_length=LENGTH))
    step = make_train_step(model, AdamW(1e-4, global_clipnorm=1.0))
    inputs, labels = next(iter(pretraining_dataset(prepared.train, masking, BATCH)))
    pair = tf.function(lambda number: make_rows(block, RowOptions(LENGTH), number, 0)["token_ids"])
    tokens = {"step": BATCH * LENGTH, "read and mask": READ_BATCHES * BATCH * LENGTH}

    def read(turn: int) -> None:
        # a new pipeline each time: one that stands fills its buffers while the others work
        for _ in pretraining_dataset(prepared.train, masking, BATCH, start_step=turn * READ_BATCHES).take(READ_BATCHES):
            pass

    def pair_all(number: int) -> None:
        tokens["pair"] = int(tf.math.count_nonzero(pair(tf.constant(number, tf.int64))))

    work: dict[str, Callable[[int], object]] = {
        "step": lambda _: float(step(inputs, labels)["mlm_loss"]),
        "read and mask": read,
        "pair": pair_all,
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, run in work.items():
            begin = time.perf_counter()
            run(turn)
            if turn:  # the first turn compiles
                seconds[name].append(time.perf_counter() - begin)
    speed = {name: tokens[name] / statistics.median(seconds[name]) for name in work}
    # One token passes through both: the times add up.
    feed = 1 / (1 / speed["read and mask"] + 1 / speed["pair"])
    packed = make_rows(block, RowOptions(LENGTH, pairs="packed"), 0, 0)["token_ids"].numpy()
    return {
        **{f"{name.replace(' ', '_')}_tokens_per_second": value for name, value in speed.items()},
        "feed_tokens_per_second": feed,
        "feed_over_step": feed / speed["step"],
        "packed_useful_share": float((packed != tokenizer.pad_id).mean()),
        **shares(masking, prepared.train),
    }


def shares(masking: Masking, records: object) -> dict[str, float]:
    """Shares over at least 10 million ordinary tokens, and how many binomial standard deviations they are off."""
    totals = np.zeros(4)
    for inputs, labels in pretraining_dataset(records, masking, 1024):
        counts = labels["mlm_weights"].numpy() > 0
        put = np.take_along_axis(inputs["token_ids"].numpy(), inputs["mask_positions"].numpy(), 1)[counts]
        special = np.isin(inputs["token_ids"].numpy(), masking.special_ids) & (inputs["token_ids"].numpy() != 4)
        ordinary = special.size - special.sum()
        totals += (
            ordinary,
            counts.sum(),
            (put == masking.mask_id).sum(),
            (put == labels["mlm_labels"].numpy()[counts]).sum(),
        )
        if totals[0] > 1e7:
            break
    n, chosen, masked, kept = totals
    kept_share = 0.1 + 0.1 / (masking.vocabulary_size - len(masking.special_ids))
    found = {"tokens": n, "chosen_share": chosen / n, "mask_share": masked / chosen, "kept_share": kept / chosen}
    for name, count, share, of in (
        ("chosen", chosen, 0.15, n),
        ("mask", masked, 0.8, chosen),
        ("kept", kept, kept_share, chosen),
    ):
        found[f"{name}_deviations"] = (count / of - share) / np.sqrt(share * (1 - share) / of)
    return {name: float(value) for name, value in found.items()}


def report(record: dict[str, float]) -> None:
    write_text(
        ROOT / "book" / "results" / "input_pipeline.json", json.dumps({"date": today(), **record}, indent=2) + "\n"
    )
    text = f"""## The input pipeline

| work | tokens/s |
|---|---:|
| one training step, mini size, batch {BATCH} x {LENGTH}, vocabulary 30,522 | {record["step_tokens_per_second"]:,.0f} |
| reading records and masking | {record["read_and_mask_tokens_per_second"]:,.0f} |
| pairing tokenised text | {record["pair_tokens_per_second"]:,.0f} |
| pairing, reading and masking, one after the other | {record["feed_tokens_per_second"]:,.0f} |

The pipeline feeds **{record["feed_over_step"]:.1f} times** the tokens that the step consumes on the same cores.

Over {record["tokens"]:,.0f} tokens the masks chose {record["chosen_share"]:.5f} of them
({record["chosen_deviations"]:+.1f} binomial standard deviations from 0.15), put [MASK] on {record["mask_share"]:.5f} of
those ({record["mask_deviations"]:+.1f} from 0.8), and left {record["kept_share"]:.5f} as they were
({record["kept_deviations"]:+.1f}). Packed rows hold {record["packed_useful_share"]:.2%} useful tokens.

{machine()}. {", ".join(f"{name} {version}" for name, version in versions("keras", "tensorflow").items())}.
{today()}, `python -m benchmarks.input_pipeline`.
"""
    write_section("input_pipeline", text)
    print(text)


if __name__ == "__main__":
    main()
