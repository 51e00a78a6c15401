"""The contender of `benchmarks.tasks`: a head of `transformers` trained in PyTorch on batches that are given to it.

python -m benchmarks.tasks_peer FOLDER [--serve]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import serve

NOT_DECAYED = ("bias", "LayerNorm.weight")
NEW = ("classifier", "qa_outputs")  # the heads


def main() -> None:
    folder = Path(sys.argv[1])
    if "--serve" in sys.argv:
        serve_steps(lambda: training(folder)[0])
        return
    step, model = training(folder)
    plan = json.loads((folder / "plan.json").read_text())
    for number in range(plan["total"]):
        step(number)
        if (number + 1) % plan["per_epoch"] == 0:
            model.save_pretrained(folder / f"epoch-{(number + 1) // plan['per_epoch']}")


def training(folder: Path) -> tuple[Callable[[int], float], Any]:
    """A function that does step `n` of the plan in a folder, and the model that it trains."""
    import torch

    plan = json.loads((folder / "plan.json").read_text())
    torch.manual_seed(plan["seed"])
    model, loss_of = HEADS[plan["head"]](plan)
    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.endswith(NOT_DECAYED), name.startswith(NEW)), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": 0.0 if undecayed else plan["weight_decay"],
                "lr": plan["peak"] * (plan["head_factor"] if new else 1.0),
            }
            for (undecayed, new), parameters in groups.items()
        ],
        eps=1e-6,
    )
    total, warmup = plan["total"], int(plan["total"] * plan["warmup_share"])

    def factor(step: int) -> float:
        return max(0.0, min(1.0, (step + 1) / max(warmup, 1), (total - step) / (total - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    batches = read_batches(folder / "batches.npz")
    model.train()

    def step(number: int) -> float:
        loss = loss_of({name: torch.from_numpy(array) for name, array in batches[number].items()})
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan["clip_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return loss.item()

    return step, model


def read_batches(path: Path) -> list[dict[str, np.ndarray]]:
    """The arrays of each step, by name."""
    batches: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            number, name = key.split("/", 1)
            batches.setdefault(int(number), {})[name] = arrays[key]
    return [batches[number] for number in range(len(batches))]


def serve_steps(start: Callable[[], Callable[[int], float]]) -> None:
    """Answer `{"step": n}` with the seconds that it took."""

    def timed() -> Callable[[dict[str, Any]], dict[str, Any]]:
        step = start()

        def work(command: dict[str, Any]) -> dict[str, Any]:
            begin = time.perf_counter()
            step(command["step"])
            return {"seconds": time.perf_counter() - begin}

        return work

    serve(timed)


def inputs_of(batch: dict[str, Any]) -> dict[str, Any]:
    return {
        "input_ids": batch["token_ids"].long(),
        "token_type_ids": batch["segment_ids"].long(),
        "attention_mask": batch["padding_mask"].long(),
    }


def sequence(plan: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import BertForSequenceClassification

    kinds = {
        "single_label": "single_label_classification",
        "multi_label": "multi_label_classification",
        "regression": "regression",
    }
    model = BertForSequenceClassification.from_pretrained(
        plan["model"], num_labels=plan["num_labels"], problem_type=kinds[plan["kind"]]
    )

    def loss_of(batch: dict[str, Any]) -> Any:
        labels = batch["labels"].long() if plan["kind"] == "single_label" else batch["labels"].float()
        return model(**inputs_of(batch), labels=labels).loss

    return model, loss_of


def token(plan: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import BertForTokenClassification

    model = BertForTokenClassification.from_pretrained(plan["model"], num_labels=plan["num_labels"])

    def loss_of(batch: dict[str, Any]) -> Any:
        labels = batch["labels"].long()
        return model(**inputs_of(batch), labels=labels.masked_fill(labels < 0, -100)).loss

    return model, loss_of


def spans(plan: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import BertForQuestionAnswering

    model = BertForQuestionAnswering.from_pretrained(plan["model"])

    def loss_of(batch: dict[str, Any]) -> Any:
        places = {name: batch[name].long() for name in ("start_positions", "end_positions")}
        return model(**inputs_of(batch), **places).loss

    return model, loss_of


def vectors(plan: dict[str, Any]) -> tuple[Any, Any]:
    """Mean pooling and the cosine loss, as `sentence-transformers` has them."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(plan["model"])  # with the pooler that our model has too

    def loss_of(batch: dict[str, Any]) -> Any:
        mask = batch["padding_mask"].float()[..., None]
        hidden = model(**inputs_of(batch)).last_hidden_state
        pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        cosines = (pooled[0::2] * pooled[1::2]).sum(-1)
        return torch.mean((cosines - batch["labels"][0::2]) ** 2)

    return model, loss_of


HEADS = {"sequence": sequence, "token": token, "spans": spans, "vectors": vectors}

if __name__ == "__main__":
    main()
