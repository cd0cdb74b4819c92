"""NMFFeatures, the scikit-learn transformer, and nnmf, the same for ``df.pipe``.

A fit is: choose, shift and scale columns (columns) -> find loadings H and bring them to canonical form (fitting).
"""

from functools import cache, partial
from inspect import signature
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import check_array
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from . import dask_tables, files, frames, sources
from ._warn import numpy_defaults, warn_user
from .aligning import Loadings, aligned
from .columns import Columns, listed, numeric
from .core.checks import check_weights
from .core.loss import Loss
from .core.objective import loss_and_spread
from .core.products import product
from .core.projection import linear_scores
from .describing import DescribingMixin, needs_rows
from .factorize import PARAMETERS as FIT_PARAMETERS
from .factorize import warn_of_outcome
from .fitting import canonical, problem_of, scores_of, scores_of_table, solve
from .nearest import offer, some
from .pieces import Pieces, fit_pieces
from .progress import CallbackSupportMixin, Called, followed, unchanged_by_errors
from .scaling import PARAMETERS as SCALING_PARAMETERS
from .scaling import Scaling
from .state import restored, saved
from .streams import Sums, follow, sums_of_fit, without_target
from .targets import PARAMETERS as TARGET_PARAMETERS
from .targets import Targets


class NMFFeatures(DescribingMixin, CallbackSupportMixin, TransformerMixin, BaseEstimator):
    """Replace numeric columns by a few non-negative, additive components.

    The columns X, shifted and scaled to be non-negative, are factorised as X ~ W H with W, H >= 0. The scores W
    become the columns ``NNMF1`` ... ``NNMFk``; the loadings H say what each is made of. The fit minimises

        D(X, W H)  +  penalty * l1_ratio       * (p * sum(W)  + n * sum(H))
                   +  penalty * (1-l1_ratio)/2 * (p * |W|_F^2 + n * |H|_F^2)

    for n rows and p columns (constant ones not counted); D is 1/2 |X - W H|_F^2, unless ``loss`` says otherwise.
    Samples are rows here, so W belongs to rows and H to columns; in literature that puts samples in columns the two are
    swapped.

    Parameters
    ----------
    n_components : int, default 2
        Number of components k. 0 leaves the data unchanged; a number above that of the chosen columns is
        capped, with a warning.
    variables : label, list of labels, callable, selector, or None, default None
        Columns to factorise: names in frames (also floats, such as wavelengths), positions in arrays; a function that
        returns them, given X, such as scikit-learn's ``make_column_selector``; or a selector of polars or skrub. None
        takes all numeric columns: columns of objects count, if all are numbers or missing; booleans do not, but where
        they are chosen they are 0 and 1. The other columns pass through untouched.
    penalty : float, default 0.001
        Strength of the penalty on scores and loadings; larger is sparser.
    l1_ratio : float, default 1.0
        Share of the penalty that is L1 (makes zeros); the rest is L2 (shrinks).
    shift : {"min", "mode", "split"} or None, default "min"
        How columns become non-negative; see :class:`NonNegativeScaler`.
    scale : {"std", "max", "mean", "robust"} or None, default "std"
        What the shifted columns are divided by; see :class:`NonNegativeScaler`.
    clip : float or None, default None
        Share of the training rows at either end of a column whose values are cut off, before shift and scale; see
        :class:`NonNegativeScaler`.
    out_of_range : {"clip", "warn", "raise"}, default "clip"
        What happens to new values below the training minimum.
    projection : {"nnls", "linear"}, default "nnls"
        Scores of a row: the exact non-negative minimiser of the same objective as in the fit, or X H' (what
        recipes' ``bake()`` computes).
    drop_original : bool, default True
        Whether the chosen columns are left out of the result.
    prefix : str, default "NNMF"
        Components are named by the prefix and their number, zero-padded so that names sort.
    feature_names_out : {"numbered", "labels"}, default "numbered"
        Names of the components, in the result and everywhere else: ``NNMF1``, ``NNMF2``, ..., or :meth:`labels`, after
        the columns that dominate them. Labels belong to one fit: on other rows, and so in every fold of a
        cross-validation, the same component may have another.
    align_to : NMFFeatures, pandas.DataFrame or dict, optional
        An earlier fit, whose numbering is kept: a fitted model, or the frame that its :meth:`tidy` returned (or a dict
        of that). Components are matched so that the sum of the cosines of their loadings, in columns of the same name,
        is largest. Those without a partner come last, largest first. The fit itself does not depend on it. ``clone``,
        and so ``GridSearchCV``, unfits models in parameters: pass the frame there. See :meth:`changes`.
    loss : {"frobenius", "kullback-leibler", "itakura-saito", "negative-binomial"}, float or Loss, default "frobenius"
        The loss D; see :func:`factorize`. For counts take "kullback-leibler" with ``shift=None, scale=None``: the
        default shift moves zero, and with the default scale counts are no longer counts. "itakura-saito" needs positive
        data, but the default shift makes zeros.
    solver : {"auto", "hals", "newton", "mu", "als", "gradient"}, default "auto"
        See :func:`factorize`.
    learning_rate : float, optional
        Fixed step of ``solver="gradient"``; see :func:`factorize`.
    init : {"auto", "nnsvd-lrc", "nndsvda", "random"} or array-like of shape (n_components, n_columns), default "auto"
        Where the loadings start, on the shifted and scaled columns. "auto" tries many starts, always the same ones; see
        :func:`factorize`. The columns of a frame are matched by name with those that are factorised (with
        ``shift="split"``: ``name+`` and ``name-``).
    n_init : int, default 1
        How many starts are run to the end; the best by objective is kept; see :func:`factorize`.
    max_iter : int, default 1000
        Most passes over the data for each start.
    tol : float, default 1e-5
        Relative fall of the objective per pass below which the fit stops. Above 3e-5 ``init="auto"`` takes the best of
        four starts in place of many, above 1e-4 one (ten times as much where cells are missing), unless ``n_init`` is
        more than 1.
    missing_values : {"raise", "ignore", "unstored"}, default "raise"
        Whether missing cells (NaN, NA) are an error, or are left out of shift, scale, fit, scores and ``score``. With
        "unstored" the cells that sparse data do not store are left out as well, as in a table of ratings. Rows without
        observed cells have NaN scores; columns without observed cells are set aside, like constant ones.
    target_weight : float, default 0.0
        How much the components have to explain the target y as well. The fit minimises its objective plus
        ``target_weight`` * D(X, m) * (share of y that a linear model on the scores leaves unexplained), m being the
        ``column_means_``. So with 1 a share of y counts as much as the same share of X, whatever the size of the table
        and the units; a grid such as 0, .1, 1, 10 serves everywhere. Choose it by cross-validation of the whole
        pipeline: the larger it is, the more the components follow the training rows. Scores never see y: ``transform``
        needs X alone. 0 ignores y.
    target_type : {"auto", "continuous", "binary", "multiclass"}, default "auto"
        Whether y is a number, for which the linear model is linear regression, or a class, for which it is logistic
        regression. With "auto" words, categories and booleans are classes, and so are whole numbers if there are at
        most ten different ones; other numbers are continuous.
    random_state : int, RandomState instance or None, default None
        Seed of random starts. The default, ``init="auto"``, uses none.
    n_jobs : int or None, default None
        Threads; None: as many as the process may use. The result does not depend on it.
    beta_loss : same as loss, optional
        Another name of ``loss``, as in scikit-learn's ``NMF``.
    n_nonzero_loadings : int, optional
        Most columns that a component is made of, for components that are easy to name; they are chosen in the fit, see
        :func:`factorize`. With ``shift="split"`` the two halves of a column count as one. None: no limit.
    memory_budget : int, optional
        Memory, in bytes, that the fit to a table in files may use. If the columns, their copies and the scores need
        more, they lie in a temporary file, and ``fit`` reads them from there. None: a quarter of the memory that is
        free.
    verbose : int, default 0
        1: log what the fit is doing, about once a second; 2: every pass. See :func:`factorize`, and, for progress bars
        and for stopping early, ``set_callbacks``.
    forget_factor : float, default 0.7
        What earlier batches count in :meth:`partial_fit` once another comes, relative to it; with batches of n rows the
        components follow about the last n / (1 - forget_factor) rows. 1 forgets nothing, 0 all.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_columns)
        Loadings H; each row sums to 1 (or is zero, for a component that found nothing to explain). The
        component with the largest total comes first, unless ``align_to`` has another order. Columns are as in
        ``variables_``, doubled with ``shift="split"``.
    component_scales_ : ndarray of shape (n_components,)
        s: ``W / s`` and ``s[:, None] * H`` are the pair that minimises the objective.
    variables_ : list
        The columns that are factorised.
    n_components_ : int
        Number of components.
    explained_ : ndarray of shape (n_components,)
        <W H, w_t h_t> / |X|^2, each component's share of the sum of squares (rows weighted); for other losses than
        Frobenius sum(x w_t h_t / (W H)) / sum(x), its share of the sum.
    column_explained_ : ndarray of shape (n_variables,)
        Share of the sum of squares of each column, shifted and scaled, that the components explain,
        1 - |x_j - (W H)_j|^2 / |x_j|^2 (rows weighted, over the observed cells); NaN for constant columns. See
        :meth:`drift`.
    target_loadings_ : ndarray of shape (n_components, n_targets)
        With a ``target_weight``: what one unit of each component's score adds to the target, in its units; for classes,
        to the log-odds of the second of two, or to the logarithm of the probability of each of more. Those are the
        coefficients of the linear model on all scores together.
    target_names_ : list of str
        Names of the columns of ``target_loadings_``: targets, or ``target=class``.
    target_explained_ : float
        Share of the target explained in the training rows, the mean over several: R^2, for classes the share of the
        deviance, a little less for the ridge of the linear model. In new rows it is less.
    objective_ : float
        Objective of the result, with its target if there is one; ``inf`` if squares of X overflow.
    history_ : ndarray
        Objective after each accepted pass.
    n_iter_ : int
        Number of passes over the data.
    kkt_residual_ : float
        How far the loadings are from stationary; see :class:`Factorization`.
    converged_ : bool
        Whether ``tol`` was met within ``max_iter``, and before a callback stopped the fit.
    scaling_ : dict
        What shift and scale learned; as in :class:`NonNegativeScaler`.
    column_means_ : ndarray
        Training means of the shifted and scaled columns, with which ``score`` compares; for a loss of your own whose
        ``best_constants`` are others, these.
    score_penalties_ : ndarray of shape (2,)
        What a unit of |w|_1 and of |w|^2 / 2 costs in the balanced pair, for one row.
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
        usable column or row, names that clash, bad weights; with a ``target_weight``, if there is no y, or one that is
        the same in all rows; parameters of a wrong type or range
        (``InvalidParameterError``) or that contradict each other.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` was reached.
    UserWarning
        For constant columns, more components than columns, components that stay zero; with ``variables=None`` for
        columns that are left out because a few of their cells are words.

    Notes
    -----
    If loadings are linearly dependent, many scores fit equally well; those of least norm are returned.
    A frame whose labels are not strings keeps them. If such columns remain beside the components, labels are of mixed
    types, and the next scikit-learn step refuses them: first do ``X.columns = X.columns.astype(str)``. Under
    ``set_output`` labels become scikit-learn's names, ``x0``, ``x1``, ....
    Columns of an integer array that pass through become floats beside the components.

    References
    ----------
    D. D. Lee and H. S. Seung (1999), Learning the parts of objects by non-negative matrix factorization, Nature
    401; C. Fevotte and J. Idier (2011), Algorithms for nonnegative matrix factorization with the beta-divergence,
    Neural Computation 23; ``step_nnmf_sparse`` of the R package recipes. For the target: S. de Jong and H. A. L. Kiers
    (1992), Principal covariates regression, Chemometrics and Intelligent Laboratory Systems 14; J. Mairal, F. Bach and
    J. Ponce (2012), Task-driven dictionary learning, IEEE Transactions on Pattern Analysis and Machine Intelligence 34.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from nmf_features import NMFFeatures
    >>> X = load_diabetes(as_frame=True, scaled=False).data
    >>> nmf = NMFFeatures(n_components=3).fit(X)
    >>> nmf.transform(X).columns.tolist()
    ['NNMF1', 'NNMF2', 'NNMF3']
    """

    feature_names_in_: np.ndarray  # scikit-learn sets it, and says so to no type checker

    _parameter_constraints: ClassVar[dict] = {
        "variables": [str, Real, "array-like", callable, HasMethods("expand"), HasMethods(["over", "alias"]), None],
        "projection": [StrOptions({"nnls", "linear"})],
        "drop_original": ["boolean"],
        "prefix": [str],
        "feature_names_out": [StrOptions({"numbered", "labels"})],
        "align_to": [HasMethods("tidy"), pd.DataFrame, dict, None],
        "memory_budget": [Interval(Integral, 1, None, closed="left"), None],
        "forget_factor": [Interval(Real, 0, 1, closed="both")],
        **SCALING_PARAMETERS,
        **FIT_PARAMETERS,
        **TARGET_PARAMETERS,
    }

    def __init__(
        self,
        n_components: int = 2,
        *,
        variables: Any = None,
        penalty: float = 0.001,
        l1_ratio: float = 1.0,
        shift: str | None = "min",
        scale: str | None = "std",
        clip: float | None = None,
        out_of_range: str = "clip",
        projection: str = "nnls",
        drop_original: bool = True,
        prefix: str = "NNMF",
        feature_names_out: str = "numbered",
        align_to: Any = None,
        loss: str | float | Loss = "frobenius",
        solver: str = "auto",
        learning_rate: float | None = None,
        init: Any = "auto",
        n_init: int = 1,
        max_iter: int = 1000,
        tol: float = 1e-5,
        missing_values: str = "raise",
        target_weight: float = 0.0,
        target_type: str = "auto",
        random_state: Any = None,
        n_jobs: int | None = None,
        beta_loss: str | float | Loss | None = None,
        n_nonzero_loadings: int | None = None,
        memory_budget: int | None = None,
        verbose: int | bool = 0,
        forget_factor: float = 0.7,
    ) -> None:
        self.n_components = n_components
        self.variables = variables
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.shift = shift
        self.scale = scale
        self.clip = clip
        self.out_of_range = out_of_range
        self.projection = projection
        self.drop_original = drop_original
        self.prefix = prefix
        self.feature_names_out = feature_names_out
        self.align_to = align_to
        self.loss = loss
        self.solver = solver
        self.learning_rate = learning_rate
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.missing_values = missing_values
        self.target_weight = target_weight
        self.target_type = target_type
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.beta_loss = beta_loss
        self.n_nonzero_loadings = n_nonzero_loadings
        self.memory_budget = memory_budget
        self.verbose = verbose
        self.forget_factor = forget_factor

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn the components.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Training data. Sparse data (also a frame of Sparse columns) stay sparse, with ``shift=None``. Or a table in
            files: the path of a Parquet, CSV or Feather file or of a folder of them (also with a protocol that fsspec
            knows), a list of files, a pattern such as ``"2024-*.parquet"``, or a ``pyarrow.dataset.Dataset``. y and
            sample_weight are then names of its columns.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            Target, or several: numbers, words, booleans, categories. Rows where it is missing say nothing of it. Needed
            with a ``target_weight``, else ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, 0 or more: a row of weight 2 counts like two such rows, in shift and scale too, and a
            row of weight 0 does not count.

        Returns
        -------
        self
        """
        self._fit(X, y, sample_weight)
        return self

    @unchanged_by_errors
    @numpy_defaults
    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Learn the components and return X with them, exactly as ``fit(X).transform(X)`` does.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), optional
            As in :meth:`fit`.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows. One of weight 0 is treated as a new row: ``out_of_range`` applies to it.

        Returns
        -------
        frame or array of shape (n_samples, n_features_out)
        """
        if dask_tables.is_dask(X):
            dask_tables.refuse_output(self)
            learned, _ = self._fit(X, y, sample_weight)
            return self.transform(learned.table)  # without the columns that y and sample_weight name
        files.refuse_source(X)
        learned, W = self._fit(X, y, sample_weight)
        if self.n_components_ and W is None:
            return self.transform(learned.table)
        if self.n_components_ and self.projection == "linear":
            W = linear_scores(learned.X, self.components_)
        columns, table = learned.columns, learned.table
        del learned  # frees the copy of the columns, before there is one of the scores
        return columns.result(table, W)

    @without_target
    @numpy_defaults
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn from one more batch of rows, and forget a part of the earlier ones.

        The first batch is an ordinary fit. It settles the columns, their shift and scale, the number of components and
        their order: ``NNMF1`` stays what it was, though it may change slowly. A model of ``fit`` goes on in the same
        way, with its training rows as the first batch. Each later batch is scored; its sums are added to those of the
        earlier ones, times ``forget_factor``; and the loadings become those that the sums want. Earlier rows keep the
        scores they had, so this is an approximation, which is the better the less the loadings move.

        Parameters
        ----------
        X : frame, array-like or sparse matrix of shape (n_samples, n_features)
            The batch. Values out of the range of the first one are treated as in ``transform``; without rows, nothing
            changes. Or a table in files, as in :meth:`fit`: after the first batch one that fits in ``memory_budget``,
            whose columns are found by their names.
        y : ignored
            In a first batch in files, or of Dask, it names columns that are left out, as in :meth:`fit`.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, 0 or more; of a table in files the name of a column.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As in ``fit`` and ``transform``, and for a model that has no sums to add to.
        AttributeError
            With a ``target_weight``, for which there is no ``partial_fit``.

        Notes
        -----
        After a later batch ``explained_``, ``column_explained_`` and ``impute_penalties_`` are of all rows in the sums,
        each judged by the loadings from before its batch; ``column_means_`` are means with the same weights, and
        ``objective_`` is that of the last batch alone, by the loadings from before it. ``history_``, ``n_iter_``,
        ``converged_`` and ``kkt_residual_`` remain those of the first batch. Loadings of least squares are improved
        by coordinate descent, those of other losses by multiplicative steps, whatever the ``solver``. With
        ``n_nonzero_loadings`` components keep to the columns that they have after the first batch.

        References
        ----------
        J. Mairal, F. Bach, J. Ponce and G. Sapiro (2010), Online learning for matrix factorization and sparse coding,
        Journal of Machine Learning Research 11.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> from nmf_features import NMFFeatures
        >>> X = load_wine(as_frame=True).data.sample(frac=1, random_state=0)
        >>> nmf = NMFFeatures(n_components=3, forget_factor=1)
        >>> for start in range(0, len(X), 60):
        ...     nmf = nmf.partial_fit(X[start : start + 60])
        >>> nmf.transform(X).columns.tolist()
        ['NNMF1', 'NNMF2', 'NNMF3']
        """
        self._validate_params()
        if not hasattr(self, "components_"):
            return self.fit(X, y, sample_weight)
        columns = self.columns_
        source = files.opened(X) if files.is_source(X) else None
        table = columns.checked(X) if source is None else None
        if self.n_components_ == 0:
            return self
        if getattr(self, "_sums", None) is None:
            raise ValueError(
                "This model has no sums over rows that partial_fit could go on from: it was saved by a version without "
                "partial_fit, is one of load_tidy, or was fitted to cells whose squares leave the range of floats "
                "(scale them). Fit it anew."
            )
        if source is None:
            _refuse_names(sample_weight=sample_weight)
            matrix, fresh = columns.read(table)
        else:
            (matrix, sample_weight), fresh = sources.read(columns, source, sample_weight), True
        found = follow(columns, matrix, fresh, Sums(**self._sums), sample_weight)
        if found is None:
            return self
        self.components_, self.component_scales_ = found.components, found.component_scales
        self.explained_, self.column_explained_ = found.explained, found.column_explained
        self.objective_, self.column_means_ = found.objective, found.column_means
        self.impute_penalties_, self._sums = found.impute_penalties, vars(found.sums)
        return self

    @numpy_defaults
    def transform(self, X: Any) -> Any:
        """Return X with components in place of (or beside) the chosen columns.

        A row's scores depend on that row alone.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        Returns
        -------
        frame or array of shape (n_samples, n_features_out)
            The same kind as X, with its index; other columns come first, then the components.
        """
        columns = self.columns_
        self._validate_params()
        if dask_tables.is_dask(X):
            return dask_tables.transformed(self, X)
        table = columns.checked(X)
        return columns.result(table, scores_of_table(columns, table) if self.n_components_ else None)

    @numpy_defaults
    def inverse_transform(self, X: Any) -> Any:
        """Return the chosen columns, rebuilt from scores, in original units.

        Parameters
        ----------
        X : frame or array-like
            What ``transform`` returned: the components are found by name, the chosen columns return to their places,
            and the others are copied. Or the components alone, which gives the chosen columns alone.

        Returns
        -------
        frame or array
            The same kind as X. With ``projection="linear"``, the least-squares inverse of X H'.
        """
        check_is_fitted(self)
        X = frames.as_table(X)
        if not frames.is_frame(X):
            X = check_array(X, accept_sparse="csr", dtype=None, ensure_all_finite=False, ensure_min_samples=0)
        if self.n_components_ == 0:
            return frames.copy(X)
        columns = self.columns_
        at, rest = columns.locate(X)
        W, _ = frames.to_matrix(X, at)
        H = np.linalg.pinv(self.components_).T if self.projection == "linear" else self.components_
        return columns.restored(X, rest, product(W, H.astype(W.dtype)))

    @needs_rows
    @numpy_defaults
    def impute(self, X: Any) -> Any:
        """Return X with its missing cells, and only those, imputed from the factorisation, in original units.

        Parameters
        ----------
        X : frame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``, and ``missing_values="ignore"``. Columns other than the
            chosen ones are left as they are. In sparse data only stored NaN are imputed.

        Returns
        -------
        frame or array of shape (n_samples, n_features)
            The same kind as X. Imputed values lie in the training range of their column (with ``clip``, between the
            quantiles: what lies beyond was cut off before the fit). They come from scores that are shrunk by
            ``impute_penalties_``, since exact scores would follow the noise of few cells. A row without observed cells
            gets the column means; a column without observed cells in training stays missing.

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
        columns = self.columns_
        table = columns.checked(X)
        matrix, _ = columns.read(table)
        if sparse.issparse(table):
            Z = columns.scale(matrix)
            W = scores_of(columns, Z, self.impute_penalties_)

            def fitted_at(rows, terms):
                fitted = np.einsum("ct,tc->c", W[rows], self.components_[:, terms])
                return np.where(np.isnan(fitted), self.column_means_[terms], fitted)

            return columns.filled_sparse(table, fitted_at)
        missing = np.isnan(matrix.toarray() if sparse.issparse(matrix) else matrix)  # sparse: a frame of Sparse columns
        if not missing.any():
            return frames.copy(table)
        Z = columns.scale(matrix[missing.any(axis=1)])
        W = scores_of(columns, Z, self.impute_penalties_)
        fitted = np.where(np.isnan(W[:, :1]), self.column_means_, product(W, self.components_))
        return columns.filled(table, missing, fitted)

    @needs_rows
    @numpy_defaults
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the share explained, 1 - D(X, W H) / D(X, m), where m is ``column_means_``.

        D is the loss of the fit; for the default loss these are |X - W H|^2 and |X - m|^2. W are the exact
        non-negative scores, also with ``projection="linear"``.

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
        columns = self.columns_
        Z = columns.scaled(columns.checked(X))
        W = scores_of(columns, Z)
        W[np.isnan(W)] = 0  # rows with nothing observed do not count
        weights, loss = check_weights(sample_weight, Z), columns.loss
        error, spread = loss_and_spread(Z, W, self.components_, self.column_means_, loss, weights, columns.missing(Z))
        if spread == 0:
            if error == 0:
                warn_user("score is nan: X equals the training means, so there is nothing to explain.")
                return float("nan")
            return float("-inf")
        return 1 - error / spread

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
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
        names, columns = _check_feature_names_in(self, input_features), self.columns_
        return np.asarray([*names[columns.kept], *columns.component_names], dtype=object)

    @classmethod
    @cache
    def _get_param_names(cls):
        """Return the names that scikit-learn reads from the signature, once for every class."""
        return super()._get_param_names()

    def _validate_params(self):
        """Check the parameters that are not at their defaults: to check all takes longer than to score a row."""
        given = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in DEFAULTS or type(value) is not type(DEFAULTS[name]) or value != DEFAULTS[name]
        }
        validate_parameter_constraints(self._parameter_constraints, given, type(self).__name__)

    @property
    def columns_(self):
        """The :class:`Columns` that are factorised: for plots and other code that works on the scaled matrix."""
        check_is_fitted(self)
        scaling = Scaling(**self.scaling_) if self.n_components_ else None
        where = self._labels, self._fitted_on_frame, self._positions
        return Columns(self, *where, self.n_components_, scaling, self.components_)

    @unchanged_by_errors
    @_fit_context(prefer_skip_nested_validation=True)
    @numpy_defaults
    def _fit(self, X, y, sample_weight):
        """Fit; return what was learned about the columns, and the scores (None if rows were left out of the fit)."""
        context = self._init_callback_context(max_subtasks=None)  # how many passes there will be is not known
        with followed(type(self).__name__, self.verbose, Called(self, context, X, y, sample_weight)) as watch:
            return self._learn(X, y, sample_weight, watch)

    def _learn(self, X, y, sample_weight, watch):
        """Set what is learned; ``watch`` follows the passes."""
        earlier = None if self.align_to is None else Loadings.of(self.align_to)
        if files.is_source(X):
            learned, y = sources.learn(self, files.opened(X), y, sample_weight)
            X = y
        elif dask_tables.is_dask(X):
            learned, X, y = dask_tables.learn(self, X, y, sample_weight), None, None
        else:
            X, y = frames.as_table(X), frames.read_once(y)  # y is counted, then read
            _refuse_names(y=y, sample_weight=sample_weight)
            learned = Columns.learn(self, X, sample_weight)
        columns, targets = learned.columns, Targets.of(self, y, X, learned.rows)
        for name in ("target_loadings_", "target_names_", "target_explained_", "_sums"):  # of an earlier fit
            vars(self).pop(name, None)
        self._labels, self._fitted_on_frame, self._positions = columns.labels, columns.from_frame, columns.positions
        self.variables_, self.n_components_ = columns.variables, columns.n_components
        if learned.X is None:  # no components: no cell is read
            self.components_, self.component_scales_ = np.zeros((0, len(self.variables_))), np.zeros(0)
            self.explained_, self.objective_, self.history_ = np.zeros(0), float("nan"), np.zeros(0)
            self.n_iter_, self.converged_, self.kkt_residual_ = 0, True, 0.0
            return learned, None
        self.scaling_ = vars(columns.scaling)
        arrange = None if earlier is None else partial(aligned, earlier=earlier.on(columns.terms)[1])
        if isinstance(learned.X, Pieces):
            fit, found, self.column_means_, sums = fit_pieces(columns, learned.X, arrange, watch)
        else:
            problem = problem_of(columns, learned.X, learned.weights)
            self.column_means_ = problem.loss.best_constants(learned.X, learned.weights, problem.missing)
            fit = solve(self, problem, self.n_components_, targets, init=columns.init, watch=watch)
            found = canonical(fit, problem, columns.n_counted, arrange)
            sums = sums_of_fit(columns, problem, found)
        watch.fit, self._sums = fit, None if sums is None else vars(sums)
        self.components_, self.component_scales_ = found.H, found.scales
        self.score_penalties_, self.impute_penalties_ = found.score_penalties, found.impute_penalties
        self.explained_, self.objective_ = found.explained, found.objective
        self.column_explained_ = found.column_explained
        if targets is not None:
            targets = targets.chosen(problem.used).checked()
            self.target_loadings_, self.target_explained_ = targets.read(found.W, problem.weights)
            self.target_names_, self.objective_ = targets.names, fit.objective
        self.history_, self.n_iter_, self.converged_ = fit.history, fit.n_iter, fit.converged
        self.kkt_residual_, columns.loadings = fit.kkt_residual, found.H
        warn_of_outcome(
            fit, self.objective_, found.alive, self.penalty, self.max_iter, self.tol, columns.component_names
        )
        return learned, found.W if found.W is not None and learned.rows is None and problem.used.all() else None

    def __getstate__(self):
        state = super().__getstate__()
        if "components_" in state:  # who loads a fitted model need not have, or trust, the callbacks of its fit
            state = {name: value for name, value in state.items() if name != "_skl_callbacks"}
        return saved(state)

    def __setstate__(self, state):
        if "loss" not in state:  # a model from before beta_loss was renamed to loss
            state = {**state, "loss": state["beta_loss"], "beta_loss": None}
        newer = {"feature_names_out": "numbered", "align_to": None}  # parameters it may be from before
        newer |= {"n_nonzero_loadings": None, "clip": None, "target_weight": 0.0, "target_type": "auto", "verbose": 0}
        newer |= {"memory_budget": None, "forget_factor": 0.7}
        super().__setstate__(restored(state, newer))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.positive_only = tags.input_tags.sparse = self.shift is None
        tags.input_tags.allow_nan = self.missing_values != "raise"
        tags.target_tags.required = bool(self.target_weight)
        return tags


def _refuse_names(**arguments):
    """Refuse names of columns, which are for tables in files and of Dask: of rows in memory they would be ignored."""
    for argument, value in arguments.items():
        if isinstance(value, str):
            raise ValueError(
                f"{argument} is {value!r}, and X has its rows in memory; wanted one value for each row, such as "
                f"X[{value!r}], and X without this column."
            )


DEFAULTS = {name: parameter.default for name, parameter in signature(NMFFeatures).parameters.items()}


def checked(model):
    """Return an NMFFeatures after checking its parameters as ``fit`` does."""
    model._validate_params()
    return model


def nnmf(df: Any, n: int = 2, *, target: Any = None, return_transformer: bool = False, **params: Any) -> Any:
    """Return a frame with NMF components in place of its numeric columns, in one line.

    Parameters
    ----------
    df : frame
        The table; see :class:`NMFFeatures` for what happens to its columns.
    n : int, default 2
        Number of components.
    target : str or list of str, optional
        Columns to leave out of the factorisation, also where a callable or selector as ``variables`` chooses them; they
        pass through. With ``target_weight`` above 0 the components also serve them.
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
        As :class:`NMFFeatures` does, and for a ``target`` that is not a column, or is among ``variables``.

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
    of_dask = dask_tables.is_dask(df)
    head = df = df if of_dask else frames.as_table(df)
    if of_dask:
        head = dask_tables.sample_of(df)
    if target is not None:
        labels = frames.labels(head)
        targets = listed(target, labels, "target")
        unknown = [name for name in targets if name not in labels]
        if unknown:
            raise ValueError(f"target has {some(unknown)}, not found in X; wanted {offer(unknown, labels)}.")
        variables = params.get("variables")
        by_rule = frames.chosen_by_rule(head, variables)
        if by_rule is not None:
            variables = [v for v in listed(by_rule, labels, "variables") if v not in targets]
        elif variables is None:
            variables = [labels[j] for j in numeric(head, labels, targets)]
        elif both := [v for v in listed(variables, labels, "variables") if v in targets]:
            raise ValueError(f"target and variables share {both}; wanted each column in one of them at most.")
        params = {**params, "variables": variables}
    transformer = NMFFeatures(n_components=n, **params)
    y = None  # a table of Dask has none: a target_weight is refused
    if target is not None and targets and not of_dask:
        y = frames.select(df, [labels.index(name) for name in targets])
    result = transformer.fit_transform(df, y)
    return (result, transformer) if return_transformer else result
