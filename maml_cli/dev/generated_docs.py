"""What of README.md is generated: the reference of the config, the presets, the tables of results and of the benchmark.

`make reference` writes it, and a test holds the README against it.
"""

import json
from pathlib import Path

from maml_cli.config import key_table_markdown, presets
from maml_cli.dev import benchmark_tables, results_tables
from maml_cli.runs import OUTPUTS

PUBLISHED = OUTPUTS / "published"


def generated(folder: Path) -> dict[str, str]:
    """Each part by the name in its marks, <!-- NAME --> and <!-- end of NAME -->."""
    return {
        "config reference": key_table_markdown(),
        "presets": "".join(
            ["| name | |\n|---|---|\n", *(f"| `{name}` | {presets.summary(name)} |\n" for name in presets.names())]
        ),
        "results": results_tables.results_markdown(json.loads((folder / "results.json").read_text(encoding="utf-8"))),
        "benchmark": benchmark_tables.benchmark_markdown(
            json.loads((folder / "bench.json").read_text(encoding="utf-8"))
        ),
    }


def fill(readme: str, parts: dict[str, str]) -> str:
    """`readme` with each part between its marks."""
    for name, text in parts.items():
        before, start, rest = readme.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        assert start and end, name
        readme = f"{before}{start}{text}{end}{after}"
    return readme


if __name__ == "__main__":
    file = Path("README.md")
    file.write_text(fill(file.read_text(encoding="utf-8"), generated(PUBLISHED)))
