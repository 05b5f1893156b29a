"""Numbers in text: narrow enough for a table, and as precise as they look."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maml_cli.documents import finite_or_null
from maml_cli.reporting import format_interval, format_number, format_short, plural
from maml_cli.reporting.format import list_in_words

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def _unit(text: str) -> float:
    """One unit of the last digit of a number in text."""
    digits, _, exponent = text.partition("e")
    return float(10.0 ** (int(exponent or 0) - len(digits.partition(".")[2])))


@given(st.floats())
def test_a_number_is_at_most_11_columns_wide(value: float) -> None:
    assert len(format_number(value)) <= 11 and len(format_short(value)) <= 11


@given(FINITE)
def test_a_number_in_text_is_within_half_a_unit_of_its_last_digit(value: float) -> None:
    for text in format_number(value), format_short(value):
        if math.isfinite(float(text)):  # the largest float rounds up to 1.8e308
            assert abs(float(text) - value) <= 0.5 * _unit(text) * (1 + 1e-9)
        assert "e+" not in text and "e-0" not in text


@given(FINITE.filter(lambda value: abs(value) < 1e300))
def test_formatting_a_formatted_number_changes_nothing(value: float) -> None:
    for function in format_number, format_short:
        assert function(float(function(value))) == function(value)


def test_formats_change_at_rounded_bounds() -> None:
    """9.99996 has four decimals below 10, and rounds to 10: three decimals, as 10 itself."""
    texts = {
        9.99996: "10.000",
        99.9996: "100.00",
        999.996: "1.0e3",
        9.9999e-5: "0.0001",
        9.4e-5: "9.4e-5",
        0.0: "0.0000",
    }
    assert {value: format_number(value) for value in texts} == texts


def test_numbers_that_are_not_finite_are_inf_in_text_and_null_in_json() -> None:
    assert [format_number(value) for value in (math.inf, -math.inf, math.nan)] == ["inf", "-inf", "inf"]
    assert format_short(math.inf, overflow="overflow") == "overflow"
    assert finite_or_null({"a": [1.5, math.inf], "b": (math.nan, 2)}) == {"a": [1.5, None], "b": [None, 2]}


@pytest.mark.parametrize(
    ("mean", "half_width", "text"),
    [
        (0.5, 0.25, "0.5000 ± 0.2500"),
        (0.5, math.inf, "0.5000"),
        (3e-31, 1e-31, "3.0e-31"),
        (math.inf, 1.0, "inf ± 1.0000"),
    ],
)
def test_an_interval_of_a_rounding_error_or_an_overflow_has_no_half_width(
    mean: float, half_width: float, text: str
) -> None:
    assert format_interval(mean, half_width) == text


def test_counts_and_alternatives_in_words() -> None:
    assert [plural(1, "seed"), plural(0, "seed"), plural(12345, "step")] == ["1 seed", "0 seeds", "12,345 steps"]
    assert [list_in_words(["a", "b", "c"]), list_in_words(["a"]), list_in_words([])] == ["a, b or c", "a", ""]
