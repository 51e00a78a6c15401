"""A plan as a table for the terminal."""

from __future__ import annotations

from bertkeras.training.plan import ROOM, UPDATE_BYTES, UPDATE_OPERATIONS, Plan

Line = tuple[str, str, str]


def plan_lines(plan: Plan, precision: str) -> list[tuple[str, list[Line]]]:
    """Sections of lines of a name, a value and a remark."""
    device, total = plan.device, sum(plan.flops.values())
    unchecked = "" if device.name == "cpu" else "; from published runs of BERT-Large"
    rate = device.rate(precision)
    of_step = {
        "products": plan.product_seconds,
        "optimizer's update": plan.update_seconds,
        "all-reduce of the gradients": plan.reduce_seconds,
        "all-reduce of the activations": plan.model_parallel_seconds,
    }
    intensity, ridge = UPDATE_OPERATIONS / UPDATE_BYTES, rate / device.bandwidth
    remarks = {
        "products": f"at {plan.mfu:.0%} of {rate / 1e12:,.4g} TFLOP/s in {precision} (--mfu{unchecked})",
        "optimizer's update": f"at least: {intensity:g} FLOP for a byte, where the device has {ridge:,.0f}",
        "all-reduce of the gradients": f"in a ring of {plan.devices // plan.model_shards}, behind no products",
        "all-reduce of the activations": f"of {plan.model_shards} that share each layer",
    }
    names = {"attention": "attention", "feed_forward": "feed-forward", "head": "head, masked positions only"}
    work = [
        (label, f"{plan.flops[name]:.3e}", f"FLOPs a step, {plan.flops[name] / total:.0%}")
        for name, label in names.items()
    ]
    work += [
        ("embeddings", f"{plan.flops['embeddings']:.0f}", "looked up: no useful arithmetic"),
        ("all useful", f"{total:.3e}", "FLOPs a step"),
        ("not useful", f"{plan.extra_flops:.3e}", "look-ups by products, last queries, blocks computed again"),
    ]
    step = [
        (name, _seconds(seconds), f"{seconds / plan.step_seconds:.1%}; {remarks[name]}")
        for name, seconds in of_step.items()
        if seconds
    ]
    run = [
        ("device", f"{plan.devices} x {device.name}", _grouped(plan)),
        ("steps", f"{plan.steps:,}", f"of {plan.step_tokens:,.0f} real pieces"),
        ("a step", _seconds(plan.step_seconds), f"{plan.step_tokens / plan.step_seconds:,.0f} pieces a second"),
        ("hours", f"{plan.hours:,.2f}", ""),
        ("device-hours", f"{plan.device_hours:,.2f}", ""),
    ]
    if plan.money is not None:
        run.append(("money", f"{plan.money:,.2f}", f"at {plan.price:g} for a device and hour"))
    return [
        ("Work", [("parameters", f"{plan.parameters:,}", ""), *work]),
        ("Time of a step", step),
        ("The run", run),
        ("Memory of a device", _memory(plan)),
    ]


def _memory(plan: Plan) -> list[Line]:
    memory = plan.memory
    unchecked = "" if plan.device.name == "cpu" else "; not measured off the CPU"
    parts = {
        "weights": (memory.weights, ""),
        "Adam's moments": (memory.optimizer, "two for each weight"),
        "moving average": (memory.ema, ""),
        "gradients": (memory.gradients, "at the end of the backward pass"),
        "sums of gradients": (memory.accumulated, "over micro-batches"),
        "activations": (memory.activations, f"at its beginning, of a micro-batch{unchecked}"),
        "logits": (memory.logits, "there too, with what the loss makes of them"),
        "at the fullest moment": (memory.peak, "less than the sum: gradients come as activations go"),
    }
    lines = [(name, _bytes(size), remark) for name, (size, remark) in parts.items() if size]
    verdict = "fits" if plan.fits else "does not fit"
    remark = (
        f"{plan.memory.peak / plan.device.memory:.0%} of {plan.device.memory / 1e9:,.0f} GB; {ROOM:.0%} may be used"
    )
    if plan.needed_accumulation != plan.accumulation:
        remark += f"; the fewest micro-batches that fit: --accumulation {plan.needed_accumulation}"
    return [*lines, (verdict, "", remark)]


def _grouped(plan: Plan) -> str:
    replicas = plan.devices // plan.model_shards
    return f"{replicas} replicas on {plan.model_shards} each" if plan.model_shards > 1 else ""


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds * 1e3:,.3g} ms"


def _bytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
