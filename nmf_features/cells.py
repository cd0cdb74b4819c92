"""Cells that are objects: which are numbers, which are missing, and what they are as floats.

pandas keeps a column as objects if its cells are Decimals (money from a database), if integers and floats are mixed, or
if a single row comes from a service with None in it. Their dtype says nothing, so the cells are asked.

A number is an int, a float, a Decimal, a Fraction or a scalar of NumPy; it becomes the nearest float64, which is the
number itself for all floats, and for integers up to 2^53. None, NaN, NA and NaT are missing. Text is no number, not
even "3". But where nearly all text of a column reads as numbers, numbers were meant: a single "?" in a file makes text
of them all.
"""

import re
from decimal import Decimal
from numbers import Real

import numpy as np
import pandas as pd

SLICE = 1 << 10  # cells that are looked at together
BOOLEANS = (bool, np.bool_)
NUMBERS = (Real, Decimal, np.bool_)  # bool is a Real
PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)  # text that float can read
GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")  # and 1,200
NAME = re.compile(r"0\d+")  # a postal code, a number of an article
FEW_WORDS = 0.1  # different ones, as a share of the cells


def hold_numbers(values):
    """Whether objects are all numbers or missing, and at least one is a number; booleans do not count as numbers."""
    found = False
    for start in range(0, len(values), SLICE):  # the first word ends it: columns of words are many
        part = values[start : start + SLICE]
        kinds = set(map(type, part[~pd.isna(part)]))
        if not all(issubclass(kind, NUMBERS) and not issubclass(kind, BOOLEANS) for kind in kinds):
            return False
        found = found or bool(kinds)
    return found


def to_floats(values):
    """Return objects as float64, missing ones NaN and booleans 0 and 1, and the position of the first strange one.

    The position is None if all are numbers, booleans or missing; else the floats are of no use.
    """
    known = np.flatnonzero(~pd.isna(values))
    found = np.full(len(values), np.nan)
    try:
        if all(issubclass(kind, NUMBERS) for kind in set(map(type, values[known]))):
            found[known] = values[known].astype(np.float64)
            return found, None
    except (OverflowError, ValueError):  # an int of more than 308 digits, a signalling NaN
        pass
    return found, next(int(i) for i in known if not _is_number(values[i]))


def mean_numbers(values):
    """Whether objects, at least some of a column, are meant as numbers: more than half are, or read as such.

    Where all are text, the others have to be few different words, such as "?" and "n/a": tickets ("113803",
    "PC 17599") are names. So is text that begins with a zero, as postal codes do.
    """
    known = values[~pd.isna(values)]
    texts = [value.strip() for value in known if isinstance(value, str)]
    words = [text for text in texts if not (PLAIN.fullmatch(text) or GROUPED.fullmatch(text))]
    numbers = sum(map(_is_number, known)) - sum(isinstance(value, BOOLEANS) for value in known)
    if 2 * (numbers + len(texts) - len(words)) <= len(known) or any(map(NAME.fullmatch, texts)):
        return False
    return numbers > 0 or len(set(words)) <= max(1, FEW_WORDS * len(known))


def first_word(values):
    """Return the position of the first object that is no number and does not read as one.

    If all do, that of the first text, but None where all text is digits alone: somebody wanted these numbers as names.
    """
    names = True
    for start in range(0, len(values), SLICE):
        part = values[start : start + SLICE]
        known = np.flatnonzero(~pd.isna(part))
        if _are_digits(part[known]):  # quick: numbers of customers are many
            continue
        names = False
        for i in known:
            if not (_is_number(part[i]) or (isinstance(part[i], str) and PLAIN.fullmatch(part[i].strip()))):
                return start + int(i)
    return None if names else next((i for i, value in enumerate(values) if isinstance(value, str)), None)


def with_nan(X):
    """Return an array or list with NaN for NA, which NumPy cannot turn into a float; the same object if it has none."""
    values = np.array(X, dtype=object) if isinstance(X, list | tuple) else X
    if not isinstance(values, np.ndarray) or values.dtype != object or values.ndim != 2:
        return X
    missing = pd.isna(values)
    if not missing.any():
        return X
    values = values.copy()
    values[missing] = np.nan
    return values


def _are_digits(values):
    return set(map(type, values)) <= {str} and all(values) and (not len(values) or "".join(values).isdecimal())


def _is_number(value):
    try:
        return isinstance(value, NUMBERS) and isinstance(float(value), float)
    except (OverflowError, ValueError):
        return False
