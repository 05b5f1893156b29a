"""The documents by name, each with its command and its JSON schema."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from maml_cli.documents import adaptations, evaluations, machine, trainings
from maml_cli.documents.shape import Document


class Source(NamedTuple):
    """A document and its origin.

    origin: the command that prints it, or the file that has it as a line.
    shape: its model.
    """

    origin: str
    shape: type[BaseModel]

    @property
    def summary(self) -> str:
        """The document in one line."""
        return (self.shape.__doc__ or "").partition("\n")[0]


DOCUMENTS: Mapping[str, Source] = {
    "train": Source("maml train --json", trainings.TrainDocument),
    "train-dry-run": Source("maml train --dry-run --json", trainings.PlanDocument),
    "eval": Source("maml eval --json", evaluations.EvalDocument),
    "adapt": Source("maml adapt --json", adaptations.AdaptDocument),
    "compare": Source("maml compare --json", evaluations.CompareDocument),
    "diff": Source("maml diff --json", evaluations.DiffDocument),
    "runs": Source("maml runs --json", trainings.RunsDocument),
    "clean": Source("maml clean --json", trainings.CleanDocument),
    "sweep-show": Source("maml sweep show --json", trainings.SweepDocument),
    "export-metrics": Source("maml export metrics --json", trainings.MetricsDocument),
    "check": Source("maml check --json", machine.CheckDocument),
    "info": Source("maml info --json", machine.InfoDocument),
    "metrics.jsonl": Source("metrics.jsonl", trainings.MetricsLine),
    "timing.jsonl": Source("timing.jsonl", trainings.TimingLine),
}


class _Schema(GenerateJsonSchema):
    """A schema without defaults, whose fields are absent from documents, and without titles made up from names."""

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """The schema of a field with a default, without it."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Whether a field has a title: never."""
        return False


def json_schema(name: str) -> dict[str, Any]:
    """The JSON schema, draft 2020-12, of the document `name` of DOCUMENTS."""
    origin, shape = DOCUMENTS[name]
    schema = shape.model_json_schema(schema_generator=_Schema) | {"title": origin}
    if issubclass(shape, Document):
        schema["required"] = ["schema_version", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def json_schema_text(name: str) -> str:
    """The JSON schema of a document as text."""
    return json.dumps(json_schema(name), indent=2) + "\n"
