"""Generated pages and figures: configs/README.md, RESULTS.md with its figures, marked sections of the other pages.

`make docs` writes them from committed files, and tests compare the committed pages and figures with them.
"""

from collections.abc import Mapping
from pathlib import Path

from maml_cli.config import configs_readme, json_schema_text
from maml_cli.dev import benchmark_tables, results_tables
from maml_cli.dev.benchmark_document import read_benchmark
from maml_cli.dev.documents_table import documents_table
from maml_cli.dev.families_table import families_table
from maml_cli.dev.package_map import package_map
from maml_cli.dev.published_figures import draw_benchmark, draw_results
from maml_cli.dev.results_document import read_results
from maml_cli.dev.results_page import results_page
from maml_cli.dev.soak.document import SOAK, read_soak, soak_table
from maml_cli.runs.published import PUBLISHED


def generated_pages(root: Path) -> dict[Path, str]:
    """The text of each generated page, by its path in the checkout `root`."""
    published = root / PUBLISHED
    readme_sections = {
        "results": results_tables.summary_table(read_results(published / "results.json")),
        "benchmark": benchmark_tables.summary_table(read_benchmark(published / "bench.json")),
    }
    inside_sections = {
        "map": package_map(),
        "documents": documents_table(),
        "soak": soak_table(read_soak(root / SOAK).rows.values()),
    }
    return {
        Path("README.md"): fill_sections((root / "README.md").read_text(encoding="utf-8"), readme_sections),
        Path("maml_cli/README.md"): fill_sections(
            (root / "maml_cli" / "README.md").read_text(encoding="utf-8"), inside_sections
        ),
        Path("maml_cli/formulas/README.md"): fill_sections(
            (root / "maml_cli" / "formulas" / "README.md").read_text(encoding="utf-8"), {"families": families_table()}
        ),
        Path("configs/README.md"): configs_readme(),
        Path("configs/schema.json"): json_schema_text(),
        PUBLISHED / "RESULTS.md": results_page(published),
    }


def fill_sections(page: str, sections: Mapping[str, str]) -> str:
    """`page` with each of `sections` between <!-- NAME --> and <!-- end of NAME -->.

    Raises ValueError if the marks of a section are missing.
    """
    for name, text in sections.items():
        before, start, remainder = page.partition(f"<!-- {name} -->\n")
        _, end, after = remainder.partition(f"<!-- end of {name} -->")
        if not (start and end):
            raise ValueError(f"no marks of section {name}")
        page = f"{before}{start}{text}{end}{after}"
    return page


def draw_generated_figures(published: Path, out: Path) -> list[Path]:
    """Draw the figures of results.json and bench.json in `published` to `out`. Returns the files."""
    return [
        *draw_results(read_results(published / "results.json"), out),
        *draw_benchmark(read_benchmark(published / "bench.json"), out),
    ]


def main(root: Path) -> None:
    """Draw all generated figures and write all generated pages."""
    draw_generated_figures(root / PUBLISHED, root / PUBLISHED)
    for path, text in generated_pages(root).items():
        (root / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path())
