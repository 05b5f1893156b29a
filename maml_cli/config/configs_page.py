"""The page configs/README.md: how configs are read, the presets by purpose, and the table of keys."""

from typing import NamedTuple

from maml_cli.config import presets
from maml_cli.config.key_table import key_table_markdown


class PresetGroup(NamedTuple):
    """Presets with one purpose.

    title: heading of the group.
    purpose: a sentence or two on what the presets have in common.
    names: the presets, in the order in which to read them.
    """

    title: str
    purpose: str
    names: tuple[str, ...]


PRESET_GROUPS = [
    PresetGroup(
        "Start here",
        "Trainings of seconds to a minute on one CPU core.",
        ("quickstart", "smoke"),
    ),
    PresetGroup(
        "Published methods",
        "`finn-*` and `fomaml-*` follow the protocol of the MAML paper. The others share one protocol, so that their "
        "errors are comparable: Finn's tasks and network, 20,000 outer steps of 25 tasks, Adam at 1e-3 with cosine "
        "decay, clipped meta-gradients. The file of a preset states where it differs.",
        (
            "finn-10shot",
            "finn-5shot",
            "fomaml-10shot",
            "finn-10shot-noise",
            "finn-10shot-clip",
            "anil-10shot",
            "boil-10shot",
            "cavia-10shot",
            "bias-input-10shot",
            "meta-sgd-10shot",
            "alpha-per-step-10shot",
            "lslr-10shot",
            "annealed-10shot",
            "multi-step-10shot",
            "maml-plus-plus-10shot",
            "meta-curvature-10shot",
            "momentum-10shot",
            "imaml-10shot",
            "reptile-10shot",
            "alpaca-10shot",
        ),
    ),
    PresetGroup(
        "Baselines",
        "Training without an inner loop, by the protocol of the methods.",
        ("joint-10shot", "oracle-10shot"),
    ),
    PresetGroup(
        "Lowest errors",
        "Combinations of methods with the lowest errors on held-out tasks.",
        (
            "best-10shot",
            "best-5shot",
            "best-1step-10shot",
            "best-1step-5shot",
            "best-frequency-10shot",
            "best-frequency-5shot",
            "wide-10shot",
            "wide-5shot",
        ),
    ),
    PresetGroup(
        "Closed-form heads",
        "The last layer is solved for on the support points, alone (`ridge-5shot`) or after each gradient step on the "
        "body.",
        (
            "ridge-10shot",
            "ridge-5shot",
            "ridge-body-10shot",
            "ridge-body-5shot",
            "ridge-frequency-10shot",
            "ridge-frequency-5shot",
        ),
    ),
    PresetGroup(
        "Mixtures of families",
        "The protocol of the multimodal benchmark of MMAML, by MAML and by a closed-form head with steps on the body: "
        "`maml eval` reports the error of each family.",
        (
            "mmaml-2modes",
            "mmaml-3modes",
            "mmaml-5modes",
            "ridge-mixture-2modes",
            "ridge-mixture-3modes",
            "ridge-mixture-5modes",
        ),
    ),
    PresetGroup(
        "Your own curves",
        "Trained on a table of curves; maml_cli/tasks/README.md walks through it.",
        ("own-curves",),
    ),
    PresetGroup(
        "Exercises",
        "Few points, one task in each outer step and plain SGD. The losses that this exercise prints, 0.224 and 0.294 "
        "on average, show no adaptation: 0.2344 needs none. `maml eval` shows the loss before and after adaptation, "
        "next to that baseline.",
        ("lab-fixed-alpha", "lab-learned-alpha"),
    ),
]

INTRODUCTION = """\
# Configs

A config is a YAML file with the sections `tasks`, `model`, `inner`, `outer` and `run`. Every key has a default, so a
file states only what differs; the defaults are the 10-shot protocol of Finn et al. 2017, but for the initial weights.
`--config` takes a file or the name of a preset, and `--set inner.steps=5` replaces one value. YAML is read strictly:
scalars follow YAML 1.2, and anchors, aliases, tags and duplicate keys are refused. So are unknown keys, values out of
bounds and settings without effect: `maml config check FILE` lists them all, each with its line and column.
`maml config show FILE` prints every value with its origin, and `maml presets copy NAME FILE` starts a config of your
own.

```
mine.yaml:7:3: inner.step: unknown key; did you mean inner.steps?
mine.yaml:9:11: inner.alpha.init must be greater than 0, got -0.01
mine.yaml:12:11: run.device must be auto, cpu, cuda or mps, got 'gpu'; did you mean cuda?
```

`make docs` generates this page from the presets and the schema.
"""


def configs_readme() -> str:
    """The text of configs/README.md."""
    return f"{INTRODUCTION}\n## Presets\n\n{presets_markdown()}\n## Keys\n\n{key_table_markdown()}"


def presets_markdown() -> str:
    """A Markdown table of presets for each group, each preset with the first comment line of its file."""
    return "\n".join(_group_markdown(group) for group in PRESET_GROUPS)


def _group_markdown(group: PresetGroup) -> str:
    rows = "".join(f"| `{name}` | {presets.summary(name)} |\n" for name in group.names)
    return f"### {group.title}\n\n{group.purpose}\n\n| preset | trains |\n|---|---|\n{rows}"
