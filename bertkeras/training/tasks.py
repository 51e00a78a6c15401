"""The tasks of `bertkeras finetune` by name."""

from __future__ import annotations

from bertkeras.training.generation_task import Generation
from bertkeras.training.span_tasks import Entities, QuestionAnswering
from bertkeras.training.task import Task
from bertkeras.training.text_tasks import Classification, MultiLabel, Regression, Similarity

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "multi-label": MultiLabel,
    "regression": Regression,
    "similarity": Similarity,
    "generation": Generation,
    "entities": Entities,
    "question-answering": QuestionAnswering,
}
