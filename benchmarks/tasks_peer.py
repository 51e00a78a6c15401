"""The contender of `benchmarks.tasks`: a head of `transformers` trained in PyTorch on batches that are given to it.

python -m benchmarks.tasks_peer PLAN.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

NOT_DECAYED = ("bias", "LayerNorm.weight")


def main() -> None:
    import torch

    plan = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(plan["seed"])
    model, loss_of = HEADS[plan["head"]](plan)
    decayed = [p for name, p in model.named_parameters() if not name.endswith(NOT_DECAYED)]
    others = [p for name, p in model.named_parameters() if name.endswith(NOT_DECAYED)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": plan["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
        lr=plan["peak"],
        eps=1e-6,
    )
    total, warmup = plan["total"], int(plan["total"] * plan["warmup_share"])

    def factor(step: int) -> float:
        return max(0.0, min(1.0, (step + 1) / max(warmup, 1), (total - step) / (total - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    batches = np.load(plan["batches"])
    seconds = []
    model.train()
    for step in range(total):
        batch = {
            name.split("/", 1)[1]: torch.from_numpy(batches[name])
            for name in batches.files
            if name.split("/", 1)[0] == str(step)
        }
        begin = time.perf_counter()
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan["clip_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begin)
        if (step + 1) % plan["per_epoch"] == 0:
            model.save_pretrained(Path(plan["out"]) / f"epoch-{(step + 1) // plan['per_epoch']}")
    (Path(plan["out"]) / "seconds.json").write_text(json.dumps(seconds))


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
    if plan["kind"] == "regression":
        model.classifier.bias.data.fill_(plan["mean"])

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

    model = BertModel.from_pretrained(plan["model"], add_pooling_layer=False)

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
