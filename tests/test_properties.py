"""Properties that hold for any table and any settings: hypothesis looks for frames that break them.

``NMF_FEATURES_EXAMPLES=20000 python -m pytest tests/test_properties.py`` tries that many, and different ones each time.
"""

import os
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmf_features import NMFFeatures
from nmf_features.core.losses import LOSSES

EXAMPLES = int(os.environ.get("NMF_FEATURES_EXAMPLES", 0))
PROFILE = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# Beginnings of our messages, and of scikit-learn's, each with what it says.
MESSAGES = (
    "X has", "Negative values in data", "Found array with", "X contains", "Input X contains", "loss=", "solver=",
    "shift=", "projection=", "learning_rate=", "variables", "sample_weight", "missing_values", "There are only",
)  # fmt: skip


def numbers(rng, kind, n):
    """Values of a column of one kind."""
    x = rng.gamma(1, size=n)
    return {
        "gamma": x,
        "normal": rng.normal(size=n),
        "constant": np.full(n, 3.0),
        "zero": np.zeros(n),
        "counts": rng.poisson(2, n).astype(float),
        "binary": (x > 1).astype(float),
        "tiny": x * 1e-300,
        "huge": x * 1e300,
        "outlier": np.where(np.arange(n) == 0, 1e9, x),
    }[kind]


NUMBERS = ["gamma", "normal", "constant", "zero", "counts", "binary", "tiny", "huge", "outlier"]
PANDAS = ["float64", "float32", "int64", "int8", "Float64", "Int64", "float64[pyarrow]", "int32[pyarrow]"]
POLARS = [pl.Float64, pl.Float32, pl.Int64, pl.Int16]
OTHERS = ["words", "booleans", "dates", "categories"]


def other(rng, kind, n):
    """A column that is no number."""
    return {
        "words": pd.Series(rng.choice(["a", "b"], n).astype(object)),
        "booleans": pd.Series(rng.uniform(size=n) < 0.5),
        "dates": pd.Series(pd.date_range("2020-01-01", periods=n)),
        "categories": pd.Series(pd.Categorical(rng.choice(["x", "y"], n))),
    }[kind]


@st.composite
def tables(draw):
    """A frame of columns of all kinds, pandas or polars."""
    n = draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=6))
    columns = {f"c{i}": numbers(rng, kind, n) for i, kind in enumerate(kinds)}
    if draw(st.booleans()):
        columns["again"] = columns["c0"].copy()
    holes = draw(st.sampled_from([0, 0, 0.2, 0.9]))
    for name in columns:
        columns[name] = np.where(rng.uniform(size=n) < holes, np.nan, columns[name])
    frame = pd.DataFrame(columns)
    for kind in draw(st.lists(st.sampled_from(OTHERS), max_size=2, unique=True)):
        frame[kind] = other(rng, kind, n)
    if draw(st.booleans()):
        frame = pl.from_pandas(frame)
        for name in columns:
            kind = draw(st.sampled_from(POLARS))
            frame = frame.with_columns(frame[name].fill_nan(None).cast(kind, strict=False))
        return frame
    for name in columns:
        kind = draw(st.sampled_from(PANDAS))
        whole = frame[name].notna().all() and frame[name].abs().max() < 100 and "nt" in kind
        if kind.lower().startswith("float") or whole:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frame[name] = (frame[name].round() if whole else frame[name]).astype(kind)
    frame.index = draw(st.sampled_from([range(n), list(range(n, 0, -1)), [f"r{i}" for i in range(n)]]))
    return frame


@st.composite
def parameters(draw):
    """Valid settings."""
    return dict(
        n_components=draw(st.integers(0, 5)),
        penalty=draw(st.sampled_from([0, 0.001, 0.1, 10])),
        l1_ratio=draw(st.sampled_from([1.0, 0.5, 0.0])),
        shift=draw(st.sampled_from(["min", "mode", "split", None])),
        scale=draw(st.sampled_from(["std", "std", "max", "mean", "robust", None])),
        clip=draw(st.sampled_from([None, None, 0.01, 0.3])),
        loss=draw(st.sampled_from(["frobenius"] * 3 + [*LOSSES, 1.5, 0.5])),
        solver=draw(st.sampled_from(["auto", "auto", "auto", "mu"])),
        missing_values=draw(st.sampled_from(["raise", "ignore", "ignore"])),
        projection=draw(st.sampled_from(["nnls", "nnls", "nnls", "linear"])),
        drop_original=draw(st.booleans()),
        max_iter=50,
    )


def array_of(frame, names):
    return np.column_stack([np.asarray(frame[name], dtype=float) for name in names]) if names else np.zeros((0, 0))


def same(one, two):
    """Whether two frames of one kind are equal, missing cells too."""
    if isinstance(one, pl.DataFrame):
        return one.equals(two, null_equal=True)
    return one.equals(two) and one.index.equals(two.index)


@PROFILE
@given(tables(), parameters())
def test_any_table(frame, given):
    before = frame.clone() if isinstance(frame, pl.DataFrame) else frame.copy(deep=True)
    nmf = NMFFeatures(**given)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("ignore", UserWarning)  # documented ones; those of NumPy remain errors
        try:
            scored = nmf.fit_transform(frame)
        except (ValueError, TypeError) as error:
            assert str(error).startswith(MESSAGES), error  # noqa: PT017
            assert same(frame, before)
            return
        again = nmf.transform(frame)
        half = frame[: len(frame) // 2 + 1]
        subset = nmf.transform(half)
    assert same(frame, before)
    assert len(scored) == len(frame)
    names = list(nmf.get_feature_names_out())
    assert list(scored.columns) == names
    if not isinstance(frame, pl.DataFrame):
        assert scored.index.equals(frame.index)
    new = [name for name in names if name.startswith("NNMF")]
    for name in names:
        if name not in new:
            assert same(scored[[name]], frame[[name]])
    W, V = array_of(scored, new), array_of(again, new)
    if not new:
        return
    observed = ~np.isnan(array_of(frame, list(nmf.variables_))).all(axis=1)
    constant = nmf.scaling_["constant"]
    if constant.any():
        counted = [v for v, c in zip(nmf.variables_, constant, strict=True) if not c]
        observed = ~np.isnan(array_of(frame, counted)).all(axis=1)
    assert np.isfinite(W[observed]).all()
    assert (W[observed] >= 0).all()
    # A fit in units of its own loses what is 1e-300 of the largest.
    np.testing.assert_allclose(W, V, rtol=0, atol=1e-290 * np.nanmax(W, initial=0.0))
    np.testing.assert_array_equal(array_of(subset, new), V[: len(half)])
    np.testing.assert_array_equal(nmf.components_[:, np.repeat(constant, 2 if given["shift"] == "split" else 1)], 0)


if EXAMPLES:
    pytestmark = pytest.mark.filterwarnings("ignore")
