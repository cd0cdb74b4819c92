"""The factorisation: mathematical facts, and comparison with scikit-learn."""

import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from nmf_features import factorize, objective
from nmf_features.core import schedule
from nmf_features.core.alternating import stationarity
from nmf_features.core.blocks import row_blocks
from nmf_features.core.descent import Descent
from nmf_features.core.missing import Missing
from nmf_features.core.penalties import Strengths, balance
from nmf_features.core.schedule import sample_sizes
from nmf_features.core.solvers import SOLVERS
from nmf_features.core.starts import STARTS
from nmf_features.core.tables import MemoryTable


def low_rank(n=60, p=12, k=3, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.gamma(0.7, 1, (n, k)) @ rng.gamma(0.7, 1, (k, p))
    return X + noise * X.mean() * rng.uniform(size=X.shape)


def gradients(X, W, H, penalty, l1_ratio):
    """Gradient of the objective by W and H, each divided by its curvature so that it has the unit of the factor."""
    s = Strengths.of(penalty, l1_ratio, *X.shape)
    by_W = W @ (H @ H.T) - X @ H.T + s.l1_W + s.l2_W * W
    by_H = (W.T @ W) @ H - W.T @ X + s.l1_H + s.l2_H * H
    return by_W / ((H**2).sum(1) + s.l2_W), by_H / ((W**2).sum(0) + s.l2_H)[:, None]


PENALTIES = [(0, 1), (0.001, 1), (0.01, 1), (0.01, 0.5), (0.01, 0)]


# tol, and the level that the residual of the loadings reaches: of any solver, and of those that do better.
ROUGH, EXACT = (1e-7, 1e-2), (1e-13, 1e-6)
LEVELS = {"hals": EXACT, "newton": EXACT, "gradient": (1e-9, 1e-4)}


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"auto"}))
@pytest.mark.parametrize("shape", [(60, 12), (12, 60), (150, 230)])
@pytest.mark.parametrize(("penalty", "l1_ratio"), PENALTIES)
def test_stationary(solver, shape, penalty, l1_ratio):
    X, (tol, level) = low_rank(*shape), LEVELS.get(solver, ROUGH)
    f = factorize(X, 3, penalty=penalty, l1_ratio=l1_ratio, solver=solver, tol=tol, max_iter=5000)
    by_W, by_H = gradients(X, f.W, f.H, penalty, l1_ratio)
    # W is the exact minimiser given H. H is stationary to sqrt(tol) in the worst case, here much better.
    assert np.abs(np.minimum(f.W, by_W)).max() < 1e-9 * f.W.max()
    assert np.abs(np.minimum(f.H, by_H)).max() < level * f.H.max()
    if shape[0] > shape[1]:  # of a wide table it is that of the transpose
        assert_allclose(f.kkt_residual, stationarity(*problem(X, f, penalty, l1_ratio)), rtol=1e-4, atol=1e-12)
    assert f.converged or level > EXACT[1]


def problem(X, f, penalty, l1_ratio):
    s = Strengths.of(penalty, l1_ratio, *X.shape)
    return f.H, f.W.T @ f.W + s.l2_H * np.eye(3), f.W.T @ X - s.l1_H


@pytest.mark.parametrize(("penalty", "l1_ratio"), PENALTIES)
def test_default_tolerance_is_near_stationary(penalty, l1_ratio):
    """The stated level at default settings: sqrt(tol) for the loadings."""
    X = low_rank(noise=0.3)
    f = factorize(X, 3, penalty=penalty, l1_ratio=l1_ratio)
    by_W, by_H = gradients(X, f.W, f.H, penalty, l1_ratio)
    assert np.abs(np.minimum(f.W, by_W)).max() < 1e-9 * f.W.max()
    assert np.abs(np.minimum(f.H, by_H)).max() < np.sqrt(1e-5) * f.H.max()


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"auto"}))
@pytest.mark.parametrize(("penalty", "l1_ratio"), PENALTIES)
def test_objective_is_the_reported_one_and_never_rises(solver, penalty, l1_ratio):
    X = low_rank(300, 20, 4, noise=0.3)
    f = factorize(X, 4, penalty=penalty, l1_ratio=l1_ratio, solver=solver)
    assert_allclose(f.objective, objective(X, f.W, f.H, penalty, l1_ratio), rtol=1e-11)
    assert np.diff(f.history).max() <= 1e-12 * (X**2).sum()
    assert f.objective <= f.history[-1] * (1 + 1e-9)  # exact scores cannot be worse than the loop's
    assert len(f.history) <= f.n_iter


def test_objective_is_scikit_learns():
    """Written out by hand in another way: sklearn's documented formula with alpha_W = alpha_H."""
    rng = np.random.default_rng(1)
    X, W, H = rng.uniform(size=(7, 5)), rng.uniform(size=(7, 2)), rng.uniform(size=(2, 5))
    a, r, n, p = 0.3, 0.4, 7, 5
    expected = 0.5 * np.linalg.norm(X - W @ H) ** 2 + a * r * (p * abs(W).sum() + n * abs(H).sum())
    expected += 0.5 * a * (1 - r) * (p * np.linalg.norm(W) ** 2 + n * np.linalg.norm(H) ** 2)
    assert_allclose(objective(X, W, H, a, r), expected, rtol=1e-14)


def test_balance_where_squares_vanish():
    """Loadings of 1e-170 have squares of zero: the L1 part alone says how scale is shared."""
    c = balance(np.ones(1), np.ones(1), np.full((1, 2), 1e-170), Strengths(0.5, 0.5, 0.5, 0.5))
    assert np.isfinite(c).all()
    assert (c > 0).all()


@pytest.mark.parametrize("l1_ratio", [0, 0.3, 1])
def test_balance_is_the_cheapest_scale(l1_ratio):
    rng = np.random.default_rng(2)
    W, H = rng.gamma(0.5, 1, (9, 3)) * [1, 1e3, 1e-3], rng.gamma(0.5, 1, (3, 4))
    unit = Strengths.of(1.0, l1_ratio, 9, 4)
    c = balance(W.sum(0), (W**2).sum(0), H, unit)
    best = unit.cost(W * c, H / c[:, None])
    for factor in (0.999, 1.001):
        assert unit.cost(W * c * factor, H / c[:, None] / factor) > best


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # raw units: 1,000 passes may not do
def test_result_is_what_is_reported_on_ill_conditioned_data():
    X = load_breast_cancer().data
    f = factorize(X, 12, penalty=0)
    assert f.history[-1] <= 1.01 * f.objective
    assert_allclose(30 * f.W.sum(0), 569 * f.H.sum(1), rtol=1e-9)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Components .* are zero")  # fewer are cheaper
        f = factorize(X, 12, penalty=0.01, l1_ratio=0.5)
    if f.converged:
        _, by_H = gradients(X, f.W, f.H, 0.01, 0.5)
        assert np.abs(np.minimum(f.H, by_H)).max() < np.sqrt(1e-5) * f.H.max()


def test_balanced_at_penalty_zero():
    X = low_rank()
    f = factorize(X, 3, penalty=0, tol=1e-12, max_iter=5000)
    assert_allclose(X.shape[1] * f.W.sum(0), X.shape[0] * f.H.sum(1), rtol=1e-6)


def test_laurberg():
    """Laurberg et al. (2008), Theorems on positive data: at alpha = .3 this factorisation is unique."""
    a = 0.3
    W = np.array([[a, 1, 0], [1, a, 0], [0, a, 1], [0, 1, a], [a, 0, 1], [1, 0, a]])
    X = W @ W.T
    f = factorize(X, 3, penalty=0, tol=1e-15, max_iter=5000)
    got = f.H / f.H.max(axis=1, keepdims=True)
    order = [int(np.abs(got - w).sum(axis=1).argmin()) for w in W.T]
    assert sorted(order) == [0, 1, 2]
    # Stops at objective 1e-14 |X|^2, a relative residual of 1e-7; the factors are about a hundred times less certain.
    assert_allclose(got[order], W.T, atol=1e-4)


def peer_cases():
    for penalty in (0, 0.001, 0.01):
        for l1_ratio in (0, 0.5, 1) if penalty == 0.001 else (1,):
            for data, k in (("digits", 16), ("breast_cancer", 5), ("ames", 10)):
                yield pytest.param(data, k, penalty, l1_ratio, id=f"{data}-{k}-{penalty}-{l1_ratio}")


@pytest.mark.parametrize(("data", "k", "penalty", "l1_ratio"), list(peer_cases()))
def test_objective_beside_scikit_learn(data, k, penalty, l1_ratio, request):
    if data == "ames":
        X = request.getfixturevalue("ames_range")
    else:
        X = {"digits": load_digits, "breast_cancer": load_breast_cancer}[data]().data
    peer = NMF(
        k, init="nndsvda", alpha_W=penalty, alpha_H=penalty, l1_ratio=l1_ratio, tol=1e-6, max_iter=2000, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the peer's, on breast cancer; and ours in extra starts
        warnings.filterwarnings("ignore", message="Components .* are zero")  # at penalty .01 two or three suffice
        theirs = objective(X, peer.fit_transform(X), peer.components_, penalty, l1_ratio)
        settings = dict(penalty=penalty, l1_ratio=l1_ratio, random_state=0)
        one, five = (factorize(X, k, n_init=m, **settings).objective for m in (1, 5))
    print(f"objective / scikit-learn's: n_init=1 {one / theirs:.5f}, n_init=5 {five / theirs:.5f}")
    assert five <= 1.001 * theirs
    assert five <= one * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(700, 9), (9, 700), (5000, 30)])
def test_any_number_of_threads_gives_the_same_bits(shape):
    X = low_rank(*shape, noise=0.5)
    one, two, three = (factorize(X, 3, n_jobs=jobs) for jobs in (1, 2, 3))
    for other in (two, three):
        assert_array_equal(one.W, other.W)
        assert_array_equal(one.H, other.H)
        assert_array_equal(one.history, other.history)


def test_many_blocks_as_one(monkeypatch):
    """The partition changes rounding only."""
    X = low_rank(1500, 9, noise=0.5)
    one = factorize(X, 3, tol=1e-9)
    monkeypatch.setattr("nmf_features.core.blocks.BLOCK_BYTES", 1)
    assert len(row_blocks(X, 3)) == 12
    many = factorize(X, 3, tol=1e-9)
    assert_allclose(many.objective, one.objective, rtol=1e-7)
    assert_allclose(many.W @ many.H, one.W @ one.H, rtol=1e-5, atol=1e-6)


def test_rows_and_columns_permuted():
    X = low_rank(noise=0.3)
    rng = np.random.default_rng(3)
    rows, columns = rng.permutation(60), rng.permutation(12)
    plain, moved = factorize(X, 3, tol=1e-10), factorize(X[rows][:, columns], 3, tol=1e-10)
    assert_allclose(moved.W, plain.W[rows], rtol=1e-5, atol=1e-6)
    assert_allclose(moved.H, plain.H[:, columns], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1e-140, 1e-155, 1e-200])
def test_loadings_whose_squares_vanish(size):
    X = low_rank()
    found = factorize(X, 2, init=np.vstack([np.ones(12), np.full(12, size)]), penalty=0)
    assert np.isfinite(found.H).all()
    assert found.objective <= factorize(X, 1, penalty=0).objective


@pytest.mark.parametrize("c", [1e-300, 1e-8, 1e8, 1e300])
def test_scaled_data_give_the_same_model_without_penalty(c):
    X = low_rank(noise=0.3)
    plain, scaled = factorize(X, 3, penalty=0), factorize(X * c, 3, penalty=0)
    assert_allclose(scaled.W / np.sqrt(c), plain.W, rtol=1e-4, atol=1e-6)
    assert_allclose(scaled.H / np.sqrt(c), plain.H, rtol=1e-4, atol=1e-6)


def test_float32_is_kept_and_near_float64():
    X = low_rank(noise=0.3)
    single, double = factorize(X.astype(np.float32), 3), factorize(X, 3)
    assert single.W.dtype == single.H.dtype == np.float32
    # In float32 the fall of the objective drowns in rounding of |X|^2 (here 100 times the objective) earlier.
    assert_allclose(single.objective, double.objective, rtol=1e-3)


@pytest.mark.parametrize("make", [np.asfortranarray, lambda X: X[::-1][::-1], lambda X: X.tolist(), "readonly"])
def test_layout_does_not_matter(make):
    X = low_rank(noise=0.3)
    other = X.copy() if make == "readonly" else make(X)
    if make == "readonly":
        other.setflags(write=False)
    assert_allclose(factorize(other, 3).W, factorize(X, 3).W, rtol=1e-6, atol=1e-8)


def test_integers_and_the_callers_data():
    X = np.random.default_rng(0).poisson(3, (30, 6))
    before = X.copy()
    f = factorize(X, 2)
    assert_array_equal(X, before)
    assert_array_equal(f.W, factorize(X.astype(float), 2).W)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (4, 2)])
def test_tiny(shape):
    X = np.random.default_rng(0).uniform(1, 2, shape)
    f = factorize(X, 1, penalty=0)
    if 1 in shape:  # rank one: exact
        assert_allclose(f.W @ f.H, X, rtol=1e-6)
    assert f.W.shape == (shape[0], 1)
    assert f.H.shape == (1, shape[1])


def test_no_components():
    X = low_rank()
    f = factorize(X, 0)
    assert f.W.shape == (60, 0)
    assert f.H.shape == (0, 12)
    assert_allclose(f.objective, 0.5 * (X**2).sum())
    assert f.converged
    assert factorize(X, 0, penalty=0).H.shape == (0, 12)


def test_more_components_than_the_rank_stay_zero_and_are_named():
    X = np.outer([1.0, 2, 3, 4], [1.0, 1, 2])
    with pytest.warns(UserWarning, match=r"Components \[1, 2\] are zero"):
        f = factorize(X, 3, penalty=0)
    assert_allclose(f.W @ f.H, X, rtol=1e-6)
    assert not f.H[1:].any()


def test_all_zero_data():
    with pytest.warns(UserWarning, match="zero"):
        f = factorize(np.zeros((5, 4)), 2)
    assert f.objective == 0
    assert not f.W.any()


@pytest.mark.parametrize("penalty", [1000, 1e308])
def test_large_penalty_empties_the_model_with_a_warning(penalty):
    """Also one whose product with the size of the table overflows."""
    X = low_rank()
    with pytest.warns(UserWarning, match=re.escape(f"penalty={penalty:g} empties the model")):
        f = factorize(X, 2, penalty=penalty)
    assert not f.W.any()
    assert_allclose([f.objective, objective(X, f.W, f.H, penalty)], (X**2).sum() / 2)


@pytest.mark.parametrize("penalty", [0, 0.001])
@pytest.mark.parametrize("init", [*STARTS, "given"])
def test_dead_component_is_revived(init, penalty):
    """A start that leaves one component without a chance must not end with it dead."""
    X = low_rank(noise=0.01)
    start = init
    if init == "given":
        start = np.abs(np.random.default_rng(0).normal(size=(3, 12)))
        start[2] = 0
    f = factorize(X, 3, init=start, penalty=penalty, random_state=0)
    assert f.W.any(axis=0).all()
    assert f.H.any(axis=1).all()
    if init == "given":  # as good as the other start finds it
        assert f.objective <= 1.05 * factorize(X, 3, penalty=penalty, n_init=5, random_state=0).objective


def test_given_start_is_used():
    X = low_rank(noise=0.3)
    done = factorize(X, 3, tol=1e-12, max_iter=5000)
    for data, loadings in ((X, done.H), (X.T, done.W.T)):
        again, fresh = factorize(data, 3, init=loadings), factorize(data, 3, init="nnsvd-lrc")
        assert again.n_iter < fresh.n_iter
        assert_allclose(again.objective, done.objective, rtol=1e-4)


def test_more_starts_are_no_worse_and_seeds_repeat():
    X = np.random.default_rng(0).gamma(0.3, 1, (80, 15))
    one, ten = factorize(X, 6), factorize(X, 6, n_init=10, random_state=0)
    assert ten.objective <= one.objective * (1 + 1e-9)
    assert_array_equal(ten.W, factorize(X, 6, n_init=10, random_state=0).W)
    a, b = (factorize(X, 6, init="random", random_state=seed).objective for seed in (1, 2))
    assert a != b


def test_not_converged_says_what_to_raise():
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 .* raise max_iter"):
        f = factorize(low_rank(noise=0.5), 3, max_iter=2)
    assert not f.converged
    assert f.n_iter == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(X=[[1.0, -1.0]]), "X has 1 negative values"),
        (dict(X=[[1.0, np.nan]]), "NaN"),
        (dict(X=[[1.0, np.inf]]), "infinity"),
        (dict(X=[1.0, 2.0]), "2D"),
        (dict(X=["t.csv"]), r"X has words \(.*'t.csv'\); wanted numbers. Read a table in a file first"),
        (dict(X=[["a", "b"]]), "X has words"),
        (dict(sample_weight=["a", "b"]), "sample_weight has words"),
        (dict(init=[["a", "b"]]), "init has words"),
        (dict(X=np.empty((0, 3))), "0 sample"),
        (dict(n_components=-1), "'n_components' parameter"),
        (dict(n_components=1.5), "'n_components' parameter"),
        (dict(penalty=-0.1), "'penalty' parameter"),
        (dict(l1_ratio=1.1), "'l1_ratio' parameter"),
        (dict(solver="cd"), "'solver' parameter"),
        (dict(init="nndsvd"), "'init' parameter"),
        (dict(init=np.ones((2, 5))), r"init has shape \(2, 5\).*\(1, 2\)"),
        (dict(init=[[1.0, -1.0]]), "minimum -1"),
        (dict(n_init=0), "'n_init' parameter"),
        (dict(max_iter=0), "'max_iter' parameter"),
        (dict(tol=-1), "'tol' parameter"),
        (dict(n_jobs=1.5), "'n_jobs' parameter"),
        (dict(random_state="a"), "'random_state' parameter"),
    ],
)
def test_bad_input(change, message):
    arguments = dict(X=[[1.0, 2.0], [3.0, 4.0]], n_components=1) | change
    with pytest.raises(ValueError, match=message):
        factorize(**arguments)


@pytest.mark.parametrize("name", ["X", "W", "H"])
def test_words_have_no_objective(name):
    arguments = dict(X=[[1.0]], W=[[1.0]], H=[[1.0]]) | {name: ["t.csv"]}
    with pytest.raises(ValueError, match=f"{name} has words .*'t.csv'.*; wanted numbers"):
        objective(**arguments)


@pytest.fixture
def samples(monkeypatch):
    """Short tables are fitted on samples, as long ones are."""
    monkeypatch.setattr(schedule, "LONG_CELLS", 0)
    monkeypatch.setattr(schedule, "SAMPLE_ROWS", 100)


def sizes(X):
    return sample_sizes(MemoryTable(X, k=3))


def test_only_long_tables_are_fitted_on_samples():
    assert sizes(np.empty((200_000, 10))) == [200_000]
    assert sizes(np.empty((1_000_000, 10))) == [3906, 62_500, 1_000_000]


def test_tall_data_is_fitted_on_samples_first(samples, monkeypatch):
    X = low_rank(20_000, 8, 3, noise=0.3)
    assert sizes(X) == [1250, 20_000]
    start = {"init": "nnsvd-lrc", "tol": 1e-4}
    sampled = factorize(X, 3, **start)
    assert sampled.n_iter < 15
    assert np.diff(sampled.history).max() <= 0
    _, by_H = gradients(X, sampled.W, sampled.H, 0.001, 1)
    assert np.abs(np.minimum(sampled.H, by_H)).max() < np.sqrt(1e-4) * sampled.H.max()
    shuffled = factorize(X[np.random.default_rng(0).permutation(20_000)], 3, **start)  # the same sample
    assert_allclose(shuffled.objective, sampled.objective, rtol=1e-5)  # rounding, where a pass gains less than 1e-4
    monkeypatch.setattr(schedule, "LONG_CELLS", 10**9)
    whole = factorize(X, 3, **start)
    assert whole.n_iter > sampled.n_iter
    assert_allclose(sampled.objective, whole.objective, rtol=1e-3)  # both stop where a pass gains less than 1e-4


# ---- single precision on the way


@pytest.fixture
def precisions(monkeypatch):
    """Names of the precisions that scores are improved in, for each pass over a block, by rows and precision."""
    seen = []

    class Watched(SOLVERS["hals"]):
        def improve_scores(self, block, Wt, *rest):
            assert block.X.dtype == Wt.dtype
            seen.append((block.X.shape[0], Wt.dtype.name))
            return super().improve_scores(block, Wt, *rest)

    monkeypatch.setitem(SOLVERS, "hals", Watched)
    return seen


def test_large_tables_are_rounded_on_the_way_small_ones_never(samples, precisions):
    X = low_rank(4000, 9, noise=0.5)
    factorize(X, 3, solver="hals", init="nnsvd-lrc", penalty=0, tol=1e-2)
    assert {name for _, name in precisions} == {"float32"}  # it tells all that the tolerance asks for
    precisions.clear()
    factorize(X, 3, solver="hals", init="nnsvd-lrc", penalty=0, tol=1e-9)
    names = [name for m, name in precisions if m == 4000]
    assert names == sorted(names)  # float32 before float64
    assert set(names) == {"float32", "float64"}
    for table in (X[:1000], 1e12 * X, 1e-13 * X):  # few rows; squares that would leave the range
        precisions.clear()
        factorize(table, 3, solver="hals", init="nnsvd-lrc", penalty=0)
        assert {name for _, name in precisions} == {"float64"}


@pytest.mark.parametrize("penalty", [0, 0.01])
@pytest.mark.parametrize("k", [1, 4])
def test_rounding_on_the_way_leaves_no_trace(samples, penalty, k, monkeypatch):
    X = low_rank(4000, 9, noise=0.5) * np.geomspace(0.1, 10, 9)
    rounded = factorize(X, k, penalty=penalty, tol=1e-9)
    monkeypatch.setattr(schedule, "_fits_single", lambda *_: False)
    double = factorize(X, k, penalty=penalty, tol=1e-9)
    assert_allclose(rounded.objective, double.objective, rtol=1e-6)
    assert_allclose(rounded.W @ rounded.H, double.W @ double.H, rtol=1e-2, atol=1e-3 * X.mean())
    assert rounded.converged
    assert rounded.kkt_residual < 1e-4


def test_what_single_precision_cannot_tell_is_told_by_double(samples, monkeypatch):
    ends, settle = [], Descent.settle

    def note(self, *rest):
        ends.append(self.table.precision.name)
        return settle(self, *rest)

    monkeypatch.setattr(Descent, "settle", note)
    for seed in range(4):
        X = low_rank(4000, 9, noise=0.2, seed=seed)
        for tol in (1e-2, 1e-6):
            factorize(X, 3, penalty=0, tol=tol)
    loose, tight = ends[::2], ends[1::2]
    assert "float32" in loose  # from a start that is good already no pass may gain more than rounding
    assert set(tight) == {"float64"}


@pytest.mark.parametrize("missing_values", ["ignore", "unstored"])
def test_penalties_of_rows_are_rounded_too(missing_values):
    """A penalty counts as much as of the row is observed, in either precision."""
    rng = np.random.default_rng(0)
    X = low_rank(4000, 20, noise=0.5) + 0.1
    seen = rng.uniform(size=X.shape) < 0.2
    X = np.where(seen, X, np.nan) if missing_values == "ignore" else sparse.csr_array(X * seen)
    blocks = []
    for dtype in (np.float32, np.float64):
        table = MemoryTable(X, missing=Missing(20, missing_values == "unstored"), k=3)
        table.start(np.dtype(dtype), remembers=False)
        blocks.append(list(table.map(lambda block, Wt: block.observed)))
    for single, double in zip(*blocks, strict=True):
        assert single.dtype == np.float32
        assert_allclose(single, double, rtol=1e-6)


def test_what_can_be_fitted_exactly_is(samples):
    X = low_rank(4000, 9, noise=0)
    f = factorize(X, 3, penalty=0, tol=1e-12, max_iter=5000)
    assert f.objective < 1e-12 * np.vdot(X, X)
    assert np.diff(f.history).max() <= 0


def test_passes_over_samples_count_by_their_rows(samples, monkeypatch):
    """One pass over all rows is worth several over a sample, each of which costs its share."""
    made, run = [], Descent.run

    def count(self, H, max_iter, *rest):
        made.append((self.table.shape[0], max_iter))
        return run(self, H, max_iter, *rest)

    monkeypatch.setattr(Descent, "run", count)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        f = factorize(low_rank(32_000, 9, noise=0.5), 3, init="nnsvd-lrc", max_iter=2, tol=1e-9)
    assert f.n_iter == 2
    assert [most for _, most in made] == [512, 32, 2]
