"""Outputs that a page shows, held against those of a run: text exactly, and measured numbers to a tolerance."""

import math
import re

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
OMISSION = "..."
NEGLIGIBLE = 1e-12
"""Two numbers of rounding errors may differ by this much."""


def assert_shown(shown: list[str], output: list[str], tolerance: float) -> None:
    """Assert that `output` has the lines `shown`, in their order, with any lines between two that `...` separates.

    Text is equal but for spaces, and so are whole numbers; others may differ by the relative `tolerance`.
    """
    position, may_skip = 0, False
    for line in shown:
        if line.strip() == OMISSION:
            may_skip = True
            continue
        candidates = range(position, len(output) if may_skip else min(position + 1, len(output)))
        match = next((index for index in candidates if agrees(line, output[index], tolerance)), None)
        assert match is not None, f"{line!r} is not in:\n" + "\n".join(output[position:])
        position, may_skip = match + 1, False
    assert may_skip or position == len(output), "lines are left out without a mark:\n" + "\n".join(output[position:])


def agrees(shown: str, line: str, tolerance: float) -> bool:
    """Whether two lines have the same text, the same whole numbers, and nearly the same other numbers."""
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", line).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(line), strict=True)
    return all(left == right or (not _is_whole(left) and _is_close(left, right, tolerance)) for left, right in pairs)


def _is_whole(number: str) -> bool:
    return number.lstrip("-").replace(",", "").isdigit()


def _is_close(left: str, right: str, tolerance: float) -> bool:
    return math.isclose(
        float(left.replace(",", "")), float(right.replace(",", "")), rel_tol=tolerance, abs_tol=NEGLIGIBLE
    )
