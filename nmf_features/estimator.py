"""NMFFeatures, the scikit-learn transformer, and nnmf, the same for ``df.pipe``.

A fit is: choose columns (frames) -> shift and scale (scaling) -> loadings H (factorize) -> scores W (projection).
What is shown is the canonical pair: the loadings of a component sum to 1 and its scores take up the size.
"""

from numbers import Integral
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import check_array
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from . import frames
from ._warn import numpy_defaults, warn_user
from .core.blocks import fitted_at_stored, row_blocks, rows_of_stored, squares, with_data
from .core.checks import check_weights, without_duplicates
from .core.losses import check_domain, loss_of
from .core.missing import Missing, column_means, leaves_out_unstored, missing_of, penalised_counts
from .core.objective import divergence, loss_and_spread
from .core.products import RESIDUAL_CELLS, gram, product
from .core.projection import exact_scores, linear_scores
from .core.schedule import Problem, fit_loadings
from .core.units import in_units, largest, safe_scale
from .factorize import PARAMETERS as FIT_PARAMETERS
from .factorize import check_solver, free_scale, warn_of_outcome
from .scaling import PARAMETERS as SCALING_PARAMETERS
from .scaling import ScaledRows, Scaling


class NMFFeatures(TransformerMixin, BaseEstimator):
    """Replace numeric columns by a few non-negative, additive components.

    The columns X, shifted and scaled to be non-negative, are factorised as X ~ W H with W, H >= 0: the scores W
    become the columns ``NNMF1`` ... ``NNMFk``, the loadings H say what each is made of. Minimises

        D(X, W H)  +  penalty * l1_ratio       * (p * sum(W)  + n * sum(H))
                   +  penalty * (1-l1_ratio)/2 * (p * |W|_F^2 + n * |H|_F^2)

    for n rows and p columns (constant ones not counted); D is 1/2 |X - W H|_F^2, unless ``beta_loss`` says otherwise.
    Samples are rows here, so W belongs to rows and H to columns; where the literature puts samples in columns the two
    change places.

    Parameters
    ----------
    n_components : int, default 2
        Number of components k. 0 leaves the data unchanged; more than the chosen columns is capped, with a
        warning.
    variables : str, int, list of them, or None, default None
        Columns to factorise: names in frames, positions in arrays. None takes all numeric columns (booleans
        are not). The other columns pass through untouched.
    penalty : float, default 0.001
        Strength of the penalty on scores and loadings; larger is sparser.
    l1_ratio : float, default 1.0
        Share of the penalty that is L1 (makes zeros); the rest is L2 (shrinks).
    shift : {"min", "split"} or None, default "min"
        How columns become non-negative; see :class:`NonNegativeScaler`.
    scale : {"std", "max", "mean", "robust"} or None, default "std"
        What the shifted columns are divided by; see :class:`NonNegativeScaler`.
    out_of_range : {"clip", "warn", "raise"}, default "clip"
        What happens to new values below the training minimum.
    projection : {"nnls", "linear"}, default "nnls"
        Scores of a row: the exact non-negative minimiser of the same objective as in the fit, or X H' (what
        recipes' ``bake()`` computes).
    drop_original : bool, default True
        Whether the chosen columns are left out of the result.
    prefix : str, default "NNMF"
        Names are the prefix and the component's number, zero-padded so that they sort.
    beta_loss : {"frobenius", "kullback-leibler", "itakura-saito"} or float, default "frobenius"
        The loss D; see :func:`factorize`. For counts take "kullback-leibler" with ``shift=None, scale=None``: the
        default shift moves zero, the default scale makes other numbers of counts. "itakura-saito" needs positive data,
        and the default shift makes zeros.
    solver : {"auto", "hals", "newton", "mu", "als", "gradient"}, default "auto"
        See :func:`factorize`.
    learning_rate : float, optional
        Fixed step of ``solver="gradient"``; see :func:`factorize`.
    init : {"auto", "nnsvd-lrc", "nndsvda", "random"} or array-like of shape (n_components, n_columns), default "auto"
        Where the loadings start, on the shifted and scaled columns. "auto" tries many starts, always the same ones; see
        :func:`factorize`.
    n_init : int, default 1
        How many starts are run to the end, of which the best by objective is kept; see :func:`factorize`.
    max_iter : int, default 1000
        Most passes over the data for each start.
    tol : float, default 1e-5
        Relative fall of the objective per pass below which the fit stops.
    missing_values : {"raise", "ignore", "unstored"}, default "raise"
        What missing cells (NaN, NA) are: an error, or left out, of shift, scale, fit, scores and ``score``. With
        "unstored" so are the cells that sparse data do not store, as in a table of ratings. Rows in which nothing is
        observed have NaN scores; columns in which nothing is are set aside, like constant ones.
    random_state : int, RandomState instance or None, default None
        Seed of random starts. The default, ``init="auto"``, uses none.
    n_jobs : int or None, default None
        Threads; None: as many as the process may use. The result does not depend on it.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_columns)
        Loadings H; each row sums to 1 (or is zero, for a component that found nothing to explain). Largest
        total amount first. Columns as in ``variables_``, doubled with ``shift="split"``.
    component_scales_ : ndarray of shape (n_components,)
        s: ``W / s`` and ``s[:, None] * H`` are the pair that minimises the objective.
    variables_ : list
        The columns that are factorised.
    n_components_ : int
        Number of components.
    explained_ : ndarray of shape (n_components,)
        <W H, w_t h_t> / |X|^2, each component's share of the sum of squares (rows weighted); for other losses than
        Frobenius sum(x w_t h_t / (W H)) / sum(x), its share of the sum.
    objective_ : float
        Objective at the result, ``inf`` where squares of X overflow.
    history_ : ndarray
        Objective after each accepted pass.
    n_iter_ : int
        Number of passes over the data.
    kkt_residual_ : float
        How far the loadings are from stationary; see :class:`Factorization`.
    converged_ : bool
        Whether ``tol`` was met within ``max_iter``.
    scaling_ : dict
        What shift and scale learned; as in :class:`NonNegativeScaler`.
    column_means_ : ndarray
        Training means of the shifted and scaled columns, what ``score`` compares with.
    score_penalties_ : ndarray of shape (2,)
        What a unit of |w|_1 and of |w|^2 / 2 cost a row in the balanced pair.
    impute_penalties_ : ndarray of shape (n_components,)
        Mean squared residual of a cell (twice its mean divergence, for other losses) over the squared mean score of the
        component: L2 strengths that ``impute`` adds.
    n_features_in_, feature_names_in_
        Number and (where all are strings) names of all columns seen in ``fit``.

    Raises
    ------
    ValueError
        In ``fit`` and ``transform``: for NaN with ``missing_values="raise"``, infinite values, negative values with
        ``shift=None``, zeros where the loss is infinite, columns that are not numeric, unknown or duplicated names, no
        usable column or row, names that clash, bad weights; parameters of a wrong type or range
        (``InvalidParameterError``) or that contradict each other.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` was reached.
    UserWarning
        For constant columns, more components than columns, components that stay zero.

    Notes
    -----
    Where loadings are linearly dependent many scores fit equally well; the least-norm ones are returned.
    A frame whose labels are not strings keeps them; where some remain beside the components, labels are mixed
    and scikit-learn's next step refuses them: first do ``X.columns = X.columns.astype(str)``. Under
    ``set_output`` labels become scikit-learn's names, ``x0``, ``x1``, ....
    Columns of an integer array that pass through become floats beside the components.

    References
    ----------
    D. D. Lee and H. S. Seung (1999), Learning the parts of objects by non-negative matrix factorization, Nature
    401; C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence,
    Neural Computation 23; ``step_nnmf_sparse`` of the R package recipes.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from nmf_features import NMFFeatures
    >>> X = load_diabetes(as_frame=True, scaled=False).data
    >>> nmf = NMFFeatures(n_components=3).fit(X)
    >>> nmf.transform(X).columns.tolist()
    ['NNMF1', 'NNMF2', 'NNMF3']
    """

    _parameter_constraints: ClassVar[dict] = {
        "variables": [str, Integral, "array-like", None],
        "projection": [StrOptions({"nnls", "linear"})],
        "drop_original": ["boolean"],
        "prefix": [str],
        **SCALING_PARAMETERS,
        **FIT_PARAMETERS,
    }

    def __init__(
        self,
        n_components=2,
        *,
        variables=None,
        penalty=0.001,
        l1_ratio=1.0,
        shift="min",
        scale="std",
        out_of_range="clip",
        projection="nnls",
        drop_original=True,
        prefix="NNMF",
        beta_loss="frobenius",
        solver="auto",
        learning_rate=None,
        init="auto",
        n_init=1,
        max_iter=1000,
        tol=1e-5,
        missing_values="raise",
        random_state=None,
        n_jobs=None,
    ):
        self.n_components = n_components
        self.variables = variables
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.shift = shift
        self.scale = scale
        self.out_of_range = out_of_range
        self.projection = projection
        self.drop_original = drop_original
        self.prefix = prefix
        self.beta_loss = beta_loss
        self.solver = solver
        self.learning_rate = learning_rate
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.missing_values = missing_values
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X, y=None, sample_weight=None):
        """Learn the components.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Training data. Sparse data (also a frame of Sparse columns) stay sparse, with ``shift=None``.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, 0 or more: a row of weight 2 counts as the row twice, in shift and scale too, a row of
            weight 0 not at all.

        Returns
        -------
        self
        """
        self._fit(X, sample_weight)
        return self

    @numpy_defaults
    def fit_transform(self, X, y=None, sample_weight=None):
        """Learn the components and return X with them, exactly as ``fit(X).transform(X)`` does.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Training data.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows. One of weight 0 is treated as a new row: ``out_of_range`` applies to it.

        Returns
        -------
        frame or array of shape (n_samples, n_features_out)
        """
        X, Z, W = self._fit(X, sample_weight)
        if self.n_components_ and W is None:
            return self.transform(X)
        if self.n_components_ and self.projection == "linear":
            W = linear_scores(Z, self.components_)
        return self._result(X, W)

    @numpy_defaults
    def transform(self, X):
        """Return X with components in place of (or beside) the chosen columns.

        A row's scores depend on that row alone.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        frame or array of shape (n_samples, n_features_out)
            The kind that came in, with its index; other columns first, then the components.
        """
        check_is_fitted(self)
        self._validate_params()
        X = self._check(X, reset=False)
        if self.n_components_ == 0:
            return self._result(X, None)
        if self.projection == "linear":
            return self._result(X, linear_scores(self._scaled(X), self.components_))
        check = loss_of(self.beta_loss).by_ratio  # zeros and ratios have to be looked for
        by_rows = not check and self.out_of_range == "clip" and frames.readable_by_rows(X, self._positions)
        return self._result(X, self._scores(self._scaled_rows(X) if by_rows else self._scaled(X)))

    @numpy_defaults
    def inverse_transform(self, X):
        """Return the chosen columns, rebuilt from scores, in original units.

        Parameters
        ----------
        X : frame or array-like
            What ``transform`` returned: the components are found by name and the chosen columns come back in
            their place, the others are copied. Or the components alone, which gives the chosen columns alone.

        Returns
        -------
        frame or array
            The kind that came in. With ``projection="linear"``, the least-squares inverse of X H'.
        """
        check_is_fitted(self)
        is_frame = frames.is_frame(X)
        if not is_frame:
            X = check_array(X, accept_sparse="csr", dtype=None, ensure_all_finite=False, ensure_min_samples=0)
        if self.n_components_ == 0:
            return frames.select(X, range(len(frames.labels(X)))) if is_frame else X.copy()
        at, rest = self._locate(X)
        W, _ = frames.to_matrix(X, at)
        H = np.linalg.pinv(self.components_).T if self.projection == "linear" else self.components_
        chosen = Scaling(**self.scaling_).invert(product(W, H.astype(W.dtype)))
        if not rest and len(frames.labels(X)) == self.n_components_:
            return frames.make(chosen, self.variables_, like=X) if is_frame else chosen

        # Back to the order of the columns in fit; columns unknown there come last.
        names = [self._labels[j] if j < self.n_features_in_ else frames.labels(X)[a] for j, a in rest.items()]
        order = np.argsort([*rest, *self._positions], kind="stable").tolist()
        if is_frame:
            others = frames.rename(frames.select(X, list(rest.values())), names)
            both = frames.beside(others, frames.make(chosen, self.variables_, like=X))
            return frames.select(both, order)
        others = X[:, list(rest.values())]
        both = sparse.hstack([others, chosen]).tocsr() if sparse.issparse(X) else np.hstack([others, chosen])
        return both[:, order]

    def _locate(self, X):
        """Where X, as ``transform`` returned it, has the components; and the other columns, by position in ``fit``.

        Names may be those of the frame in ``fit``, or those of ``get_feature_names_out``.
        """
        labels, k = frames.labels(X), self.n_components_
        kept = [j for j in range(self.n_features_in_) if j not in set(self._positions)]
        if not frames.is_frame(X):
            width = len(self._kept()) + k
            if len(labels) == k:
                return labels, {}
            if len(labels) != width:
                raise ValueError(
                    f"X has {len(labels)} columns; wanted {width} as transform returns them, or the {k} components "
                    "alone."
                )
            return labels[-k:], {j: int(np.searchsorted(self._kept(), j)) for j in kept}
        missing = [name for name in self._component_names() if name not in labels]
        if missing:
            raise ValueError(f"X lacks the components {missing}; wanted a frame as transform returns it.")
        at = [labels.index(name) for name in self._component_names()]
        if len(labels) == k:
            return at, {}
        strings = _check_feature_names_in(self, None)
        known = {
            j: [name for name in (self._labels[j], strings[j]) if name in labels] for j in range(self.n_features_in_)
        }
        missing = [self._labels[j] for j in kept if not known[j]]
        if missing:
            raise ValueError(f"X lacks the columns {missing}; wanted a frame as transform returns it.")
        rest = {j: labels.index(known[j][0]) for j in kept}
        used = {*at, *(labels.index(names[0]) for names in known.values() if names)}
        extra = [a for a in range(len(labels)) if a not in used]
        return at, rest | {self.n_features_in_ + i: a for i, a in enumerate(extra)}

    @numpy_defaults
    def impute(self, X):
        """Return X with its missing cells, and only those, filled in from the factorisation, in original units.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``, and ``missing_values="ignore"``. Other columns than the chosen ones
            are left as they are. Of sparse data the NaN that are stored are filled in, and nothing else.

        Returns
        -------
        frame or array of shape (n_samples, n_features)
            The kind that came in. What is filled in lies in the range of its column in training; the scores it comes
            from are shrunk by ``impute_penalties_``, as exact ones would follow the noise of few cells. A row in which
            nothing is observed gets the means of the columns; a column in which nothing was observed in training
            stays missing.

        Examples
        --------
        >>> import numpy as np
        >>> from nmf_features import NMFFeatures
        >>> X = np.outer([1.0, 2, 3, 4], [1.0, 2, 3])
        >>> X[1, 2] = np.nan
        >>> nmf = NMFFeatures(1, shift=None, penalty=0, missing_values="ignore").fit(X)
        >>> nmf.impute(X)[1].round(5)
        array([2., 4., 6.])
        """
        check_is_fitted(self)
        if self.n_components_ == 0:
            raise ValueError("n_components=0: there is nothing to impute from.")
        X = self._check(X, reset=False)
        matrix, _ = frames.to_matrix(X, self._positions.tolist(), self.missing_values)
        scaling = Scaling(**self.scaling_)
        if sparse.issparse(X):
            return self._impute_sparse(X, matrix, scaling)
        missing = np.isnan(matrix.toarray() if sparse.issparse(matrix) else matrix)  # sparse: a frame of Sparse columns
        if not missing.any():
            return X.copy() if not frames.is_frame(X) else frames.select(X, range(self.n_features_in_))
        rows = missing.any(axis=1)
        Z = scaling.apply(matrix[rows], self.out_of_range, self.variables_)
        self._check_domain(Z)
        W = self._scores(Z, self.impute_penalties_)
        fitted = np.where(np.isnan(W[:, :1]), self.column_means_, product(W, self.components_))
        filled = np.clip(scaling.invert(fitted), scaling.minimum, scaling.maximum)
        values = np.zeros(matrix.shape)
        values[rows] = filled
        return frames.fill(X, self._positions.tolist(), values, missing)

    def _impute_sparse(self, X, matrix, scaling):
        """Return sparse X with its stored NaN filled in."""
        Z = scaling.apply(matrix, self.out_of_range, self.variables_)
        self._check_domain(Z)
        W = self._scores(Z, self.impute_penalties_)
        filled, column_of = without_duplicates(X).copy(), np.full(self.n_features_in_, -1)
        column_of[self._positions] = np.arange(len(self._positions))
        at = np.flatnonzero(np.isnan(filled.data) & (column_of[filled.indices] >= 0))
        rows, columns = rows_of_stored(filled, at), column_of[filled.indices[at]]
        fitted = np.einsum("ct,tc->c", W[rows], self.components_[:, columns])
        fitted = np.where(np.isnan(fitted), self.column_means_[columns], fitted) * scaling.factor[columns]
        fitted = np.clip(fitted + scaling.offset[columns], scaling.minimum[columns], scaling.maximum[columns])
        filled.data[at] = fitted
        return filled

    @numpy_defaults
    def score(self, X, y=None, sample_weight=None):
        """Return the share explained, 1 - D(X, W H) / D(X, m), with m the training means of the columns.

        D is the loss of the fit, for the default |X - W H|^2 and |X - m|^2. W are the exact non-negative scores, also
        with ``projection="linear"``.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows in both sums.

        Returns
        -------
        float
            At most 1; negative where the means fit better (-inf where they are exact); nan, with a warning,
            where both errors are 0.
        """
        check_is_fitted(self)
        if self.n_components_ == 0:
            raise ValueError("n_components=0: there is nothing to score.")
        Z = self._scaled(self._check(X, reset=False))
        W = self._scores(Z)
        W[np.isnan(W)] = 0  # of rows with nothing observed, which do not count
        weights, loss = check_weights(sample_weight, Z), loss_of(self.beta_loss)
        error, spread = loss_and_spread(Z, W, self.components_, self.column_means_, loss, weights, self._missing(Z))
        if spread == 0:
            if error == 0:
                warn_user("score is nan: X equals the training means, so there is nothing to explain.")
                return float("nan")
            return float("-inf")
        return 1 - error / spread

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns that ``transform`` returns.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the columns of X; checked against those seen in ``fit``.

        Returns
        -------
        ndarray of str, of dtype object
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        return np.asarray([*names[self._kept()], *self._component_names()], dtype=object)

    def tidy(self):
        """Return the loadings in long form, sorted by component, then term, as recipes' ``tidy()`` does.

        Returns
        -------
        pandas.DataFrame
            With the columns ``terms``, ``value`` and ``component``; zero loadings too.
        """
        return self._long().sort_values(
            ["component", "terms"], key=lambda c: c.astype(str), kind="stable", ignore_index=True
        )

    def top_features(self, m=5):
        """Return the largest loadings of each component, largest first.

        Parameters
        ----------
        m : int, default 5
            How many of each; loadings of zero are left out, so a component may have fewer.

        Returns
        -------
        pandas.DataFrame
            With the columns of :meth:`tidy`.

        Raises
        ------
        ValueError
            If ``m`` is not a whole number, 1 or more.
        """
        if not isinstance(m, Integral) or m < 1:
            raise ValueError(f"m is {m!r}; wanted a whole number of columns to show, 1 or more.")
        table = self._long()
        table = table[table["value"] > 0].sort_values(["component", "value"], ascending=[True, False], kind="stable")
        return table.groupby("component").head(m).reset_index(drop=True)

    def _long(self):
        check_is_fitted(self)
        if self.n_components_ == 0:
            return pd.DataFrame({"terms": [], "value": [], "component": []})
        k, p = self.components_.shape
        terms = Scaling(**self.scaling_).names_out(self.variables_)
        return pd.DataFrame(
            {
                "terms": terms * k,
                "value": self.components_.ravel(),
                "component": pd.Series(np.repeat(self._component_names(), p), dtype=object),
            }
        )

    @_fit_context(prefer_skip_nested_validation=True)
    @numpy_defaults
    def _fit(self, X, sample_weight):
        """Fit; return X as a table, the scaled matrix and its scores (None where rows were left out of the fit)."""
        X, Z, weights, whole = self._learn_scaling(X, sample_weight)
        if Z is None:  # nothing is learned: not a cell is looked at
            self.components_, self.component_scales_ = np.zeros((0, len(self.variables_))), np.zeros(0)
            self.explained_, self.objective_, self.history_ = np.zeros(0), float("nan"), np.zeros(0)
            self.n_iter_, self.converged_, self.kkt_residual_ = 0, True, 0.0
            return X, None, None
        problem = self._problem(Z, weights)
        self.column_means_ = column_means(Z, weights, problem.missing)
        fit = fit_loadings(problem, self.n_components_, **self._fit_parameters())
        W = self._keep(fit, problem)
        warn_of_outcome(
            fit, self.objective_, W, self.components_, self.penalty, self.max_iter, self.tol, self._component_names()
        )
        return X, Z, W if whole and problem.used.all() else None

    def _fit_parameters(self):
        """Return the parameters of the loop."""
        names = ("solver", "learning_rate", "init", "n_init", "max_iter", "tol", "random_state", "n_jobs")
        return {name: getattr(self, name) for name in names}

    def _problem(self, Z, weights):
        """Return what is minimised on scaled rows."""
        alive = self._n_counted()
        missing = missing_of(Z, alive, self.missing_values)
        check_solver(self.solver, self.learning_rate, self.beta_loss, missing)
        return Problem.of(
            Z,
            largest(Z),
            weights,
            missing,
            alive,
            beta_loss=self.beta_loss,
            penalty=self.penalty,
            l1_ratio=self.l1_ratio,
        )

    def _learn_scaling(self, X, sample_weight):
        """Choose columns, learn shift and scale.

        Return X as a table, its scaled columns (None for no components), the weights of their rows, and whether these
        are all rows of X.
        """
        if self.missing_values != "raise" and self.projection == "linear":
            raise ValueError(
                'projection="linear" needs every cell of a row, so missing_values='
                f'"{self.missing_values}" is of no use with it. Pass projection="nnls", or impute first.'
            )
        X = self._check(X, reset=True)
        self._labels, self._fitted_on_frame = frames.labels(X), frames.is_frame(X)
        self._positions = np.asarray(self._choose(X), dtype=int)
        self.variables_ = [self._labels[j] for j in self._positions]
        k, most = int(self.n_components), len(self.variables_)
        self.n_components_ = min(k, most)
        self._refuse_clash()
        if k == 0:
            return X, None, None, True

        matrix, fresh = frames.to_matrix(X, self._positions.tolist(), self.missing_values)
        if k > most:
            warn_user(f"n_components={k} is more than the {most} columns that are factorised: capped.")
        weights = check_weights(sample_weight, matrix)
        whole = weights is None or bool(weights.all())
        if not whole:
            matrix, weights, fresh = matrix[weights > 0], weights[weights > 0], True
        unstored = self.missing_values == "unstored"
        learned = Scaling.learn(matrix, self.shift, self.scale, self.variables_, weights, unstored)
        self._report_constant(learned.constant, matrix.shape[0])
        self.scaling_ = vars(learned)
        Z = learned.apply(matrix, "clip", self.variables_, overwrite=fresh)
        self._check_domain(Z)
        return X, Z, weights, whole

    def _keep(self, fit, problem):
        """Keep what was found in the canonical form, and what it says of the data; return the scores."""
        Z, weights, missing, strengths = problem.X, problem.weights, problem.missing, problem.strengths
        self.score_penalties_ = np.array([strengths.l1_W, strengths.l2_W])
        W, H = fit.U, fit.H / fit.sums[:, None]
        v = np.ones(len(W)) if weights is None else weights
        by_row, by_column = penalised_counts(Z, missing, v)
        scales = free_scale(fit, problem)  # before the scores change places
        # Largest total amount first, ties by the column of the largest loading.
        order = np.lexsort((H.argmax(axis=1), -product(v, W)))
        for rows in row_blocks(W, 0):  # in place: W may be large
            W[rows] = W[rows][:, order]
        self.components_ = H = H[order]
        self.component_scales_ = s = (fit.sums / scales)[order]

        unit_Z, e = safe_scale(Z, problem.top)
        unit_W = np.ldexp(W, -2 * e) if e else W
        loss, unstored = problem.loss, leaves_out_unstored(missing)
        self.explained_ = _explained(unit_Z, unit_W, H, weights, missing, loss)
        with np.errstate(over="ignore"):
            value = divergence(unit_Z, unit_W, H.astype(Z.dtype), loss, weights, unstored)
            value = in_units(value, 2 * e * loss.degree)
            cost = strengths.l1_W * (product(by_row, W) / s).sum()
            if strengths.l2_W:
                norms = np.ldexp(np.sqrt(product(by_row, np.square(unit_W))), 2 * e)
                cost += strengths.l2_W / 2 * np.square(norms / s).sum()
        self.objective_ = float(value + cost) + strengths.cost(np.zeros(0), H * s[:, None], columns=by_column)
        self.impute_penalties_ = self._impute_penalties(2 * value, product(v, W) / v.sum(), by_row.sum())
        self.history_, self.n_iter_, self.converged_ = fit.history, fit.n_iter, fit.converged
        self.kkt_residual_ = fit.kkt_residual
        return W

    def _check(self, X, reset):
        anything = self.variables is not None or self.n_components == 0  # then other columns may hold anything
        seen = self._labels if not reset and self._fitted_on_frame else None
        return frames.check_table(self, X, reset, dtype=None if anything else [np.float64, np.float32], seen=seen)

    def _choose(self, X):
        """Positions of the columns to factorise."""
        if self.variables is None:
            positions = frames.numeric_positions(X)
            if not positions and self.n_components:
                raise ValueError("X has no numeric column to factorise; booleans do not count. Encode columns first.")
            return positions
        variables = _listed(self.variables, self._labels, "variables")
        unknown = [v for v in variables if v not in self._labels]
        if unknown:
            raise ValueError(
                f"variables has {unknown}, not found in X; wanted names of columns (positions, for an array) "
                f"among {self._labels}."
            )
        if not variables or len(set(variables)) < len(variables):
            raise ValueError(f"variables is {variables}; wanted at least one column, each once.")
        return [self._labels.index(v) for v in variables]

    def _kept(self):
        """Positions of the columns that stand before the components in the result."""
        if not self.drop_original or self.n_components_ == 0:
            return np.arange(self.n_features_in_)
        return np.setdiff1d(np.arange(self.n_features_in_), self._positions)

    def _component_names(self):
        return component_names(self.n_components_, self.prefix)

    def _refuse_clash(self):
        kept = {*_check_feature_names_in(self, None)[self._kept()], *(self._labels[j] for j in self._kept())}
        clash = [name for name in self._component_names() if name in kept]
        if clash:
            raise ValueError(f"X has columns {clash}, named like the components: pass another prefix, or rename them.")

    def _report_constant(self, constant, n):
        names = [name for name, c in zip(self.variables_, constant, strict=True) if c]
        if len(names) == len(self.variables_):
            raise ValueError(
                f"X has nothing to factorise: every chosen column is constant (n_samples={n}, columns {names})."
            )
        if names:
            warn_user(f"Constant columns carry nothing and get loading 0: {names}.")

    def _scaled(self, X):
        """Chosen columns, shifted and scaled."""
        matrix, fresh = frames.to_matrix(X, self._positions.tolist(), self.missing_values)
        Z = Scaling(**self.scaling_).apply(matrix, self.out_of_range, self.variables_, overwrite=fresh)
        self._check_domain(Z)
        return Z

    def _check_domain(self, Z):
        """Refuse zeros where the loss is infinite there; constant columns are made of them."""
        constant = [name for name, c in zip(self.variables_, self.scaling_["constant"], strict=True) if c]
        if constant and not loss_of(self.beta_loss).takes_zeros:
            raise ValueError(
                f"beta_loss={self.beta_loss!r} is infinite at zero, and constant columns become zero: leave {constant} "
                "out of variables."
            )
        check_domain(Z, self.beta_loss, self._missing(Z))

    def _scaled_rows(self, X):
        """Read and scale chosen columns where they are needed, a slice of rows at a time."""
        rows = frames.Rows(X, self._positions, self.missing_values)
        return ScaledRows(rows, Scaling(**self.scaling_), self.variables_)

    def _scores(self, Z, prior=0.0):
        """Exact scores: the balanced pair's objective, seen from the canonical one (and a prior, where cells miss)."""
        s = self.component_scales_
        l1, l2 = self.score_penalties_
        W = exact_scores(
            Z, self.components_, l1 / s, l2 / s / s, self.n_jobs, self._missing(Z), prior, loss_of(self.beta_loss)
        )
        if empty := int(np.isnan(W[:, 0]).sum()):
            warn_user(f"X has {empty} rows with nothing observed in the chosen columns: their scores are NaN.")
        return W

    def _impute_penalties(self, residual, mean_scores, observed):
        """Return sigma^2 / mean(w)^2: the squared residual of a cell over the squared mean of the scores.

        For other losses than least squares the residual is twice the divergence.
        Scores that follow few cells exactly follow their noise. These are the L2 strengths of normal noise and a
        normal prior as wide as the exponential one with the same mean; without noise they are zero.
        """
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            found = residual / (observed * self._n_counted()) / np.square(mean_scores)
        return np.where(np.isfinite(found), found, 0.0)

    def _counted(self):
        """Return which of the scaled columns are not set aside as constant."""
        return np.repeat(~self.scaling_["constant"], 2 if self.scaling_["split"] else 1)

    def _n_counted(self):
        return int(self._counted().sum())

    def _missing(self, Z):
        """Return which cells of scaled rows can be missing."""
        if self.missing_values == "raise":
            return None
        return Missing(self._n_counted(), self.missing_values == "unstored" and sparse.issparse(Z))

    def _result(self, X, W):
        """Other columns of X, then the components, in the kind of X."""
        if not frames.is_frame(X):
            if self.n_components_ == 0:
                return X.copy()
            kept = self._kept()
            stack = sparse.hstack if sparse.issparse(X) else np.hstack
            return stack([X[:, kept], W]) if len(kept) else W
        if self.n_components_ == 0:
            return frames.as_configured(self, frames.select(X, range(self.n_features_in_)))
        components = frames.make(W, self._component_names(), like=X)
        return frames.as_configured(self, frames.beside(frames.select(X, self._kept().tolist()), components))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.positive_only = tags.input_tags.sparse = self.shift is None
        tags.input_tags.allow_nan = self.missing_values != "raise"
        return tags


def component_names(k, prefix="NNMF"):
    """Return prefix and number of k components, zero-padded so that they sort."""
    return [f"{prefix}{t:0{len(str(k))}d}" for t in range(1, k + 1)]


def _explained(Z, W, H, weights, missing, loss):
    """Return what share of the sum of squares each component explains; of the sum, where the loss is another.

    <WH, w_t h_t> / |Z|^2, or sum(z w_t h_t / (WH)) / sum(z), over the observed cells, rows weighted.
    """
    V = W if weights is None else W * weights[:, None]
    if loss.squares and (missing is None or (sparse.issparse(Z) and not leaves_out_unstored(missing))):
        explained = (product(W.T, V).astype(np.float64) * gram(H)).sum(axis=1)
        if missing is not None:  # all cells, less the stored ones that are missing
            at = np.flatnonzero(np.isnan(Z.data))
            rows, columns = rows_of_stored(Z, at), Z.indices[at]
            parts = W[rows] * H[:, columns].T
            explained -= product(parts.sum(axis=1) * (1.0 if weights is None else weights[rows]), parts)
        return explained / squares(Z, weights)
    total, whole, step = np.zeros(len(H)), 0.0, max(1, RESIDUAL_CELLS // Z.shape[1])
    for start in range(0, Z.shape[0], step):
        rows = slice(start, start + step)
        z = Z[rows]
        if sparse.issparse(z):
            y, cells, counts = fitted_at_stored(z, W[rows].astype(np.float64), H), z.data, 1.0
            if weights is not None:
                counts = np.repeat(weights[rows], np.diff(z.indptr))
        else:
            y, cells, counts = product(W[rows], H), z, 1.0 if weights is None else weights[rows, None]
        part = y if loss.squares else np.divide(cells, y, out=np.zeros(y.shape), where=y > 0)
        part = np.where(np.isnan(cells), 0, part)
        whole += float(np.nansum(counts * (np.square(cells) if loss.squares else cells), dtype=np.float64))
        total += (V[rows] * (with_data(z, part) @ H.T if sparse.issparse(z) else product(part, H.T))).sum(axis=0)
    return total / whole


def _listed(names, labels, argument):
    """Return one label, or a list of them, as a list; what is neither is refused."""
    if isinstance(names, str | tuple | Integral) and not isinstance(names, bool) and names in labels:
        return [names]  # a tuple may be one label of a MultiIndex
    if isinstance(names, str | Integral):
        names = [names]
    listed = list(names)
    if isinstance(names, set | frozenset | dict) or any(isinstance(v, bool | np.bool_ | float) for v in listed):
        raise ValueError(f"{argument} is {names!r}; wanted a name or a list of names (on arrays: integer positions).")
    return listed


def nnmf(df, n=2, *, target=None, return_transformer=False, **params):
    """Return a frame with NMF components in place of its numeric columns, in one line.

    Parameters
    ----------
    df : frame
        The table; see :class:`NMFFeatures` for what happens to its columns.
    n : int, default 2
        Number of components.
    target : str or list of str, optional
        Numeric columns to leave out of the factorisation; they pass through.
    return_transformer : bool, default False
        Whether to return the fitted transformer too, for new rows.
    **params
        Any other parameter of :class:`NMFFeatures`.

    Returns
    -------
    frame, or (frame, NMFFeatures) with ``return_transformer=True``

    Raises
    ------
    ValueError
        As :class:`NMFFeatures` does, and for a ``target`` that is no column or is among ``variables``.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from nmf_features import nnmf
    >>> df = load_wine(as_frame=True).frame
    >>> df.pipe(nnmf, n=3, target="target").columns.tolist()
    ['target', 'NNMF1', 'NNMF2', 'NNMF3']
    """
    if "n_components" in params:
        raise TypeError("nnmf() takes the number of components as n, not n_components.")
    if target is not None:
        labels = frames.labels(df)
        targets = _listed(target, labels, "target")
        unknown = [name for name in targets if name not in labels]
        if unknown:
            raise ValueError(f"target has {unknown}, not found in X; wanted names of columns among {labels}.")
        variables = params.get("variables")
        if variables is None:
            variables = [labels[j] for j in frames.numeric_positions(df) if labels[j] not in targets]
            if not variables:
                raise ValueError(f"X has no numeric column to factorise beside the target {targets}.")
        elif both := [v for v in _listed(variables, labels, "variables") if v in targets]:
            raise ValueError(f"target and variables share {both}; wanted each column in one of them at most.")
        params = {**params, "variables": variables}
    transformer = NMFFeatures(n_components=n, **params)
    result = transformer.fit_transform(df)
    return (result, transformer) if return_transformer else result
