"""What a fit tells while it runs: to callbacks and the log; and what an early end leaves behind."""

import logging
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from nmf_features import NMFFeatures, factorize
from nmf_features.core import schedule
from nmf_features.core.watch import Watch
from nmf_features.progress import LOG

X, y = load_wine(return_X_y=True)
try:
    from sklearn.callback import ProgressBar, ScoringMonitor
except ImportError:
    callbacks = pytest.mark.skip(reason="needs the callbacks of scikit-learn 1.9")
else:
    callbacks = pytest.mark.filterwarnings("error")  # as everywhere

CASES = {
    "race": {},
    "named start": {"init": "nndsvda"},
    "several starts": {"n_init": 3},
    "counts": {"loss": "kullback-leibler", "shift": None, "scale": None},
    "limit": {"n_nonzero_loadings": 4},
    "target": {"target_weight": 1.0},
    "wide": {},
}


def data(case):
    if case == "wide":
        rng = np.random.default_rng(0)
        return rng.gamma(1, size=(40, 5)) @ rng.gamma(1, size=(5, 300)) + 0.1 * rng.gamma(1, size=(40, 300))
    return X


def bits(model):
    """Everything that a fit sets, as one value to compare."""
    return pickle.dumps(sorted((name, value) for name, value in vars(model).items() if not name.startswith("_skl")))


def explained(model, X, y):
    return model.score(X)


class Recorder:
    """A callback that keeps what it sees, and stops or fails where it is told to."""

    max_propagation_depth = None  # meta-estimators pass it on

    def __init__(self, stop=None):
        self.stop, self.seen, self.tasks, self.open = stop, [], [], False

    def setup(self, estimator, context):
        self.open = True

    def teardown(self, estimator, context):
        self.open = False

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(("begin", context.estimator_name, context.task_name))

    def on_fit_task_end(self, estimator, context, *, metadata=None, fitted_estimator=None):
        self.tasks.append(("end", context.estimator_name, context.task_name))
        if context.task_name not in ("pass", "start"):
            return None
        assert fitted_estimator is None
        self.seen.append(metadata)
        return self.stop is not None and self.stop(metadata)


@callbacks
def test_callbacks_see_every_pass():
    seen = Recorder()
    nmf = NMFFeatures(3, init="nndsvda").set_callbacks(seen)
    assert nmf.fit(X) is nmf
    assert not seen.open
    assert [told["pass"] for told in seen.seen] == [*range(1, nmf.n_iter_ + 1)]
    assert all(told["share_of_rows"] == 1 and told["stage"] == "all rows" for told in seen.seen)
    assert seen.seen[0]["kkt_residual"] > 100 * seen.seen[-1]["kkt_residual"] > 0
    assert seen.tasks[0] == ("begin", "NMFFeatures", "fit")
    assert seen.tasks[-1] == ("end", "NMFFeatures", "fit")


@callbacks
def test_a_long_table_is_seen_from_its_samples_on(monkeypatch):
    monkeypatch.setattr(schedule, "LONG_CELLS", 1000)
    monkeypatch.setattr(schedule, "SAMPLE_ROWS", 20)
    seen = Recorder()
    NMFFeatures(3, init="nndsvda").set_callbacks(seen).fit(np.tile(X, (8, 1)))
    shares = [told["share_of_rows"] for told in seen.seen]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 1 == shares[-1]
    assert [told["stage"] == "all rows" for told in seen.seen] == [share == 1 for share in shares]


@callbacks
@pytest.mark.parametrize("unit", [1.0, 2.0**400])
@pytest.mark.parametrize("target_weight", [0, 2])
def test_objectives_are_those_of_the_history(unit, target_weight):
    seen = Recorder()
    nmf = NMFFeatures(3, init="nndsvda", shift=None, scale=None, target_weight=target_weight).set_callbacks(seen)
    nmf.fit(X * unit, y)
    last = "target" if target_weight else "all rows"
    told = [told["objective"] for told in seen.seen if told["stage"] == last]
    assert (np.diff(told) <= 1e-13 * told[0]).all()
    known = np.isclose(
        np.array(told)[:, None], nmf.history_[1:-1], rtol=1e-9, atol=0
    )  # the last is that of exact scores
    assert known.any(axis=0).all()


@callbacks
@pytest.mark.parametrize("case", CASES)
def test_being_watched_changes_no_bit(case):
    nmf = NMFFeatures(3, **CASES[case]).fit(data(case), y[: len(data(case))])
    watched = clone(nmf).set_callbacks(Recorder())
    assert bits(watched.fit(data(case), y[: len(data(case))])) == bits(nmf)


@callbacks
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("turn", [1, 4, 30])
def test_a_callback_stops_a_fit_anywhere(case, turn):
    table = data(case)
    nmf = NMFFeatures(3, **CASES[case])
    whole = clone(nmf).fit(table, y[: len(table)])
    seen = Recorder()
    seen.stop = lambda told: len(seen.seen) == turn
    W = nmf.set_callbacks(seen).fit_transform(table, y[: len(table)])  # a warning would be an error
    assert len(seen.seen) <= turn
    assert nmf.converged_ == (len(seen.seen) < turn)
    assert whole.objective_ <= nmf.objective_ * (1 + 1e-3) < np.inf
    assert nmf.components_.any(axis=1).all()
    assert_array_equal(nmf.transform(table), W)
    if case == "limit":
        assert ((nmf.components_ > 0).sum(axis=1) <= 4).all()


@callbacks
def test_the_loadings_of_a_stopped_fit_are_those_of_so_many_passes():
    nmf = NMFFeatures(3, init="nndsvda").set_callbacks(Recorder(lambda told: told["pass"] == 4)).fit(X)
    with pytest.warns(UserWarning, match="max_iter=4"):
        short = NMFFeatures(3, init="nndsvda", max_iter=4).fit(X)
    assert (nmf.n_iter_, nmf.converged_) == (4, False)
    assert_array_equal(nmf.components_, short.components_)


@callbacks
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_callbacks_reach_the_fit_through_pipelines_and_searches(n_jobs):
    pipe = make_pipeline(NMFFeatures(2, init="nndsvda"), LogisticRegression(max_iter=500))
    search = GridSearchCV(pipe, {"nmffeatures__n_components": [2, 3]}, cv=2, n_jobs=n_jobs)
    seen = Recorder(lambda told: told["pass"] == 2)
    search.set_callbacks(seen).fit(X / X.max(axis=0), y)
    # What workers record stays there; the last fit, to all rows, is made here.
    fits = 1 if n_jobs == 2 else 5
    assert len(seen.seen) == 2 * fits
    assert search.best_estimator_[0].n_iter_ == 2
    assert not search.best_estimator_[0].converged_


@callbacks
def test_scikit_learns_own_callbacks_work(capsys):
    monitor = ScoringMonitor(scoring={"score": explained})
    nmf = NMFFeatures(3).set_callbacks(ProgressBar(), monitor).fit(X, y)
    assert "NMFFeatures - fit" in capsys.readouterr().out
    assert_allclose(monitor.get_logs().data[-1]["score"], nmf.score(X))


@callbacks
def test_callbacks_are_cloned_but_not_saved_with_a_fitted_model():
    nmf = NMFFeatures(3).set_callbacks(Recorder())
    assert clone(nmf)._skl_callbacks == nmf._skl_callbacks
    assert hasattr(pickle.loads(pickle.dumps(nmf)), "_skl_callbacks")  # to a worker
    nmf.set_callbacks(ProgressBar()).fit(X)
    assert not hasattr(pickle.loads(pickle.dumps(nmf)), "_skl_callbacks")
    assert hasattr(nmf, "_skl_callbacks")


# Early ends


@callbacks
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("case", CASES)
def test_an_error_leaves_data_and_model_as_they_were(case, error):
    def fail(told):
        if len(seen.seen) == 3:
            raise error

    table, other = data(case), pd.DataFrame(X[:, :6], columns=list("abcdef"))
    copy, seen = table.copy(), Recorder(fail)
    for nmf in (NMFFeatures(3), NMFFeatures(2).fit(other)):
        nmf.set_params(**CASES[case]).set_callbacks(seen)
        before = bits(nmf)
        for method in (nmf.fit, nmf.fit_transform):
            seen.seen.clear()
            with pytest.raises(error) as raised:
                method(table, y[: len(table)])
            assert bits(nmf) == before
            assert not seen.open
        if error is KeyboardInterrupt:
            assert "NMFFeatures was interrupted after" in str(raised.value)
    assert_array_equal(table, copy)


def test_an_error_in_the_checks_leaves_a_fitted_model_as_it_was():
    nmf = NMFFeatures(2).fit(pd.DataFrame(X[:, :6], columns=list("abcdef")))
    before = bits(nmf)
    with pytest.raises(ValueError, match="NaN"):
        nmf.fit(np.where(X > 1000, np.nan, X))
    assert bits(nmf) == before


def test_an_interrupt_says_how_far_the_fit_was(monkeypatch):
    def interrupt(watch, stage, rows, **told):
        call(watch, stage, rows, **told)
        if told["passes"] == 7:
            raise KeyboardInterrupt(*args)

    call = Watch.__call__
    monkeypatch.setattr(Watch, "__call__", interrupt)
    args = ()
    with pytest.raises(KeyboardInterrupt, match=r"^factorize was interrupted after all rows, pass 7, objective \d+\."):
        factorize(X, 3, init="nndsvda", tol=0)
    args = ("mine",)
    with pytest.raises(KeyboardInterrupt) as raised:
        factorize(X, 3, init="nndsvda", tol=0)
    assert str(raised.value) == "mine"
    assert "pass 7" in raised.value.__notes__[0]


ENDLESS = """
import numpy as np, threading
from nmf_features import NMFFeatures
rng = np.random.default_rng(0)
X = rng.gamma(1, size=(20_000, 4)) @ rng.gamma(1, size=(4, 30))
nmf = NMFFeatures(2, n_jobs=2).fit(X[:50])
earlier, copy, names = nmf.components_, X.copy(), sorted(vars(nmf))
nmf.set_params(n_components=4, tol=0, max_iter=10**9, init="random", verbose=2)
try:
    nmf.fit(X)
except KeyboardInterrupt as error:
    assert nmf.components_ is earlier and sorted(vars(nmf)) == names and (X == copy).all()
    assert threading.active_count() == 1
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_real_interrupt():
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as fit:
        for line in fit.stderr:
            if "pass 3," in line:
                fit.send_signal(signal.SIGINT)
                break
        try:
            out, err = fit.communicate(timeout=60)
        finally:
            fit.kill()
    assert (fit.returncode, "Traceback" in err) == (0, False)
    assert out.startswith("NMFFeatures was interrupted after")


# The log


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "nmf_features"]


@pytest.fixture(autouse=True)
def _fresh_level():
    level = LOG.level
    yield
    LOG.setLevel(level)


def test_verbose_logs(caplog):
    nmf = NMFFeatures(3, init="nndsvda").fit(X)
    assert lines(caplog) == []
    nmf.set_params(verbose=2).fit(X)
    found = lines(caplog)
    assert len(found) == nmf.n_iter_ + 1
    assert found[0].startswith("NMFFeatures: all rows, pass 1, objective ")
    assert found[-1].startswith(f"NMFFeatures: done, passes {nmf.n_iter_}, objective {nmf.objective_:.6g}, KKT")
    caplog.clear()
    factorize(X, 3, verbose=1)
    assert [line.split(",")[0] for line in lines(caplog)] == [
        "factorize: start 1",
        "factorize: all rows",
        "factorize: done",
    ]


def test_the_log_is_the_applications(caplog):
    LOG.setLevel(logging.WARNING)
    factorize(X, 3, verbose=2)
    assert lines(caplog) == []


def test_without_any_handler_lines_go_to_stderr(capsys, monkeypatch):
    monkeypatch.setattr(LOG, "propagate", False)
    factorize(X, 3, verbose=1)
    assert "factorize: done" in capsys.readouterr().err
    assert not LOG.handlers


# Without callbacks


def test_an_older_scikit_learn_takes_callbacks_with_a_warning():
    code = """
import sys, warnings
import sklearn.linear_model, sklearn.pipeline
if "sklearn.callback" in sys.modules:
    del sys.modules["sklearn.callback"].CallbackSupportMixin
from nmf_features import NMFFeatures
import numpy as np
nmf = NMFFeatures(2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert nmf.set_callbacks(object()) is nmf
assert "1.9" in str(caught[0].message), caught
nmf.fit(np.eye(4))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
