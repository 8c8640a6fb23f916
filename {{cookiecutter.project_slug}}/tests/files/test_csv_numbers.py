"""Numbers of csv files: what is written is what is read, to the last bit, whatever pandas is there."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.files.csv_numbers import exact, numbers_in

ONE_OF_PANDAS_2 = 0.18642111122608185  # which its own reader is a bit off


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.just(ONE_OF_PANDAS_2), min_size=1))
def test_a_number_is_read_as_it_was_written(values: list[float]) -> None:
    texts = pd.Series([exact(value) for value in values], dtype=str)
    np.testing.assert_array_equal(numbers_in(texts), values)
    both = numbers_in(pd.DataFrame({"a": texts, "b": texts[::-1].to_numpy()}))
    np.testing.assert_array_equal(both, np.stack([values, values[::-1]], axis=1))


@given(st.lists(st.text("0123456789eE+-._ xinfNaN", max_size=7), min_size=1))
def test_what_is_read_is_what_python_reads_or_no_number(texts: list[str]) -> None:
    for text, found in zip(texts, numbers_in(pd.Series(texts, dtype=str)), strict=True):
        assert math.isnan(found) or found == float(text)


@pytest.mark.parametrize("text", ["", "nan", "1_0", "1,5", "0x10", "cat", "1 2", "--1", "1E 5"])
def test_what_is_no_number_is_none(text: str) -> None:
    found = numbers_in(pd.Series(["2", text, " 3 ", "1e3"]))
    np.testing.assert_array_equal(found, [2, np.nan, 3, 1000])


def test_nothing_is_read_of_no_rows_or_no_columns() -> None:
    assert numbers_in(pd.DataFrame(columns=range(4), dtype=str)).shape == (0, 4)
    assert numbers_in(pd.DataFrame(index=range(3))).shape == (3, 0)
