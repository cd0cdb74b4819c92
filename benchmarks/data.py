"""The data of the benchmarks: float64, non-negative, seeded; real tables first, then generated ones.

``shrink`` divides the rows of generated data, to try the scripts quickly. Such results compare nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import minmax_scale

SHARED = Path(__file__).resolve().parents[2] / "shared"
ROWS_AT_ONCE = 10_000  # tables are filled piece by piece, so that making them takes no more memory than they do


class Unavailable(Exception):
    """The data are not on this machine; the message says what is missing."""


@dataclass(frozen=True)
class Data:
    """A data set: how to make it, and the numbers of components to factorise it with."""

    make: Callable  # make(shrink) -> array or scipy.sparse.csr_array, rows x columns
    ks: tuple[int, ...]
    small: bool = False  # done by --quick
    beta_loss: str = "frobenius"


def ames(shrink=1):
    """The 33 numeric predictors of 2,930 house sales in Ames, min-maxed."""
    path = SHARED / "r_reference/b_X_range.csv.gz"
    if not path.exists():
        raise Unavailable("the folder 'shared' with Ames is not beside the repository")
    return pd.read_csv(path).to_numpy(dtype=np.float64)


def breast_cancer(shrink=1):
    """569 x 30, min-maxed: the columns' units are from 1e-3 to 1e3."""
    return np.clip(minmax_scale(load_breast_cancer().data), 0, 1)  # rounding leaves -1e-17


def digits(shrink=1):
    """1,797 x 64 grey values."""
    return np.ascontiguousarray(load_digits().data)


def noisy_digits(shrink=1):
    """200,000 digits drawn with replacement, noise added to each cell."""
    pictures, rng = digits(), np.random.default_rng(0)
    X = pictures[rng.integers(len(pictures), size=200_000 // shrink)]
    X += rng.standard_normal(X.shape)
    return np.maximum(X, 0, out=X)


def low_rank(rows, columns, k):
    """k components of unequal columns, plus uniform noise of a tenth of the mean."""

    def make(shrink=1):
        rng = np.random.default_rng(0)
        H = rng.gamma(0.5, size=(k, columns))
        X = np.empty((rows // shrink, columns))
        for start in range(0, len(X), ROWS_AT_ONCE):
            piece = X[start : start + ROWS_AT_ONCE]
            np.matmul(rng.gamma(0.5, size=(len(piece), k)), H, out=piece)
            piece += 0.2 * rng.uniform(size=piece.shape) * 0.25 * k  # the mean of W H is k / 4
        return X

    return make


def wide(shrink=1):
    """400 pictures of 64 x 64: 49 soft spots of random strength, plus noise."""
    rng = np.random.default_rng(0)
    grid = np.arange(64)
    centres, widths = rng.uniform(0, 64, (49, 2)), rng.uniform(4, 12, (49, 1))
    down, across = (np.exp(-(((grid - centre[:, None]) / widths) ** 2)) for centre in centres.T)
    spots = (down[:, :, None] * across[:, None, :]).reshape(49, -1)
    X = rng.gamma(0.5, size=(400, 49)) @ spots
    return X + 0.2 * rng.uniform(size=X.shape) * X.mean()


def sparse(shrink=1):
    """50,000 documents of 5,000 words, about 1 % of cells stored: Poisson counts whose mean has rank 20."""
    rng = np.random.default_rng(0)
    documents, words, k = 50_000 // shrink, 5_000, 20
    topics = rng.dirichlet(np.full(words, 0.1), k)
    shares = rng.dirichlet(np.full(k, 0.1), documents)
    lengths = rng.gamma(3, 22, documents)  # a Poisson count of mean length * shares @ topics, drawn topic by topic
    row, column = [], []
    for t in range(k):
        tokens = rng.poisson(lengths * shares[:, t])
        row.append(np.repeat(np.arange(documents), tokens))
        column.append(rng.choice(words, tokens.sum(), p=topics[t]))
    row, column = np.concatenate(row), np.concatenate(column)
    X = sp.csr_array((np.ones(len(row)), (row, column)), shape=(documents, words))
    X.sum_duplicates()
    return X


def sparse_counts(shrink=1):
    """20,000 of these documents."""
    return sparse(shrink)[: 20_000 // shrink].copy()


KL = "kullback-leibler"
DATA = {
    "ames": Data(ames, (5, 10, 20), small=True),
    "breast cancer": Data(breast_cancer, (5,), small=True),
    "digits": Data(digits, (16, 30), small=True),
    "wide": Data(wide, (20, 49)),
    "tall": Data(low_rank(200_000, 50, 10), (10,)),
    "noisy digits": Data(noisy_digits, (16,)),
    "many columns": Data(low_rank(20_000, 500, 20), (20,)),
    "sparse": Data(sparse, (20,)),
    "breast cancer, KL": Data(breast_cancer, (5,), small=True, beta_loss=KL),
    "digits, KL": Data(digits, (16,), small=True, beta_loss=KL),
    "tall, KL": Data(low_rank(20_000, 50, 10), (10,), beta_loss=KL),
    "sparse counts, KL": Data(sparse_counts, (20,), beta_loss=KL),
    "large": Data(low_rank(1_000_000, 100, 10), (10,)),
    "very tall": Data(low_rank(2_000_000, 50, 10), ()),  # for transform_speed.py alone
}
