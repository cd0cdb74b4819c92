"""Data that several test files use."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name):
    """Read a reference table; skip the test if the reference data is not beside the repository."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"reference data {name} is not there: expected a folder 'shared' beside the repository")
    return pd.read_csv(path)


@pytest.fixture(scope="session")
def ames():
    return shared("data/ames.csv.gz")


@pytest.fixture(scope="session")
def ames_range():
    """The 33 numeric predictors of Ames, min-max scaled."""
    return shared("r_reference/b_X_range.csv.gz").to_numpy()


FRAMES = {
    "pandas": lambda frame: frame,
    "nullable": lambda frame: frame.convert_dtypes(dtype_backend="numpy_nullable"),
    "arrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda frame: pl.from_pandas(frame.reset_index(drop=True)),
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


@pytest.fixture(params=FRAMES)
def to_frame(request):
    """A function that turns a pandas frame into one of each kind; only those of pandas keep the index."""
    return FRAMES[request.param]


def to_pandas(frame):
    """Return a frame of any kind as a pandas frame of floats, words and booleans, with rows numbered from 0."""
    if not isinstance(frame, pd.DataFrame):
        frame = frame.to_pandas()
    frame = frame.reset_index(drop=True)
    return pd.DataFrame({name: column.to_numpy(_plain(column), na_value=np.nan) for name, column in frame.items()})


def _plain(column):
    return float if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column) else object


@pytest.fixture
def table():
    """A small table of mixed types, with an index of its own."""
    rng = np.random.default_rng(0)
    W, H = rng.gamma(1, 1, (40, 3)), rng.gamma(0.5, 1, (3, 6))
    frame = pd.DataFrame(W @ H + 0.05 * rng.uniform(size=(40, 6)), columns=[f"c{j}" for j in range(6)])
    frame.insert(2, "kind", pd.Categorical(rng.choice(["x", "y"], 40)))
    frame["flag"] = rng.uniform(size=40) > 0.5
    frame.index = pd.Index(np.arange(40) // 2, name="pairs")  # with duplicates
    return frame
