"""Published runs: trained learners that come with the package, found by their names from any directory."""

from pathlib import Path

PUBLISHED = Path("outputs/published")
"""The published runs in the repository: a run directory for each preset and seed."""
PACKAGE = Path(__file__).parent.parent
CHECKPOINTS = PACKAGE / "published"
"""The last checkpoint of the first seed of each in an installed package, NAME.pt."""


def published_names() -> list[str]:
    """The names of the published runs, of their first seeds."""
    packaged = {file.stem for file in CHECKPOINTS.glob("*.pt")}
    runs = {file.parents[1].name for file in (PACKAGE.parent / PUBLISHED).glob("*/checkpoints/*.pt")}
    return sorted(packaged or (name for name in runs if "-seed" not in name))


def published_checkpoint(path: Path) -> Path | None:
    """The checkpoint of the published run NAME for the path NAME or outputs/published/NAME; None if there is none.

    From the installed package, or from the repository that the package is used from.
    """
    if path.parent not in (Path(), PUBLISHED) or path.name not in published_names():
        return None
    packaged = CHECKPOINTS / f"{path.name}.pt"
    if packaged.exists():
        return packaged
    return max((PACKAGE.parent / PUBLISHED / path.name / "checkpoints").glob("step-*.pt"))
