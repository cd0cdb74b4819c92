"""Data that several test files use."""

from pathlib import Path

import numpy as np
import pandas as pd
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
