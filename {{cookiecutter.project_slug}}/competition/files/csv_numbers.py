"""How a number is written in a csv file and read from it, to the last bit. No torch."""

from typing import Any

import numpy as np
import pandas as pd
from packaging.version import Version

# What has pandas read numbers to the last bit: from 3.1 on it does so by itself, and warns of the word.
READ_EXACTLY: dict[str, Any] = {} if Version(pd.__version__) >= Version("3.1") else {"float_precision": "round_trip"}


def exact(value: float) -> str:
    """Write a number so that reading it gives the same one, in as few digits: what is handed in was scored so."""
    return repr(float(value)).removesuffix(".0")


def numbers_in(texts: "pd.Series | pd.DataFrame") -> np.ndarray:
    """Return float64 numbers of a column, or of columns (rows, columns); NaN where pandas or Python reads none.

    Python reads them: `pandas.to_numeric` of pandas 2 is a bit off in every third number of 17 digits, and takes
    `1E 5` for a number.
    """
    if isinstance(texts, pd.DataFrame):
        columns = [numbers_in(texts.iloc[:, place]) for place in range(texts.shape[1])]
        return np.stack(columns, axis=1) if columns else np.empty(texts.shape)
    parsed = pd.to_numeric(texts, errors="coerce")
    found: np.ndarray[Any, np.dtype[np.float64]] = parsed.to_numpy(dtype=np.float64, copy=True)
    is_number = np.isfinite(found)
    numbers = texts.to_numpy(dtype=object)[is_number]
    try:
        found[is_number] = numbers.astype(np.float64)
    except ValueError:
        found[is_number] = [_number_in(text) for text in numbers]
    return found


def _number_in(text: Any) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
