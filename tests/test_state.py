"""Saved models: as they were when they are read again, by this version and by later ones; nothing more to trust.

``python tests/test_state.py`` records models in the present form, in tests/states. A form that was
released stays there.
"""

import copy
import io
import json
import pickle
from datetime import timedelta, timezone
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.datasets import load_wine

from nmf_features import NMFFeatures, NonNegativeScaler
from nmf_features.state import ABOUT, FORM

RECORDS = sorted((Path(__file__).parent / "states").glob("form_*.json"))
KINDS = {"NMFFeatures": NMFFeatures, "NonNegativeScaler": NonNegativeScaler}
TRUSTED = ["nmf_features.estimator.NMFFeatures", "nmf_features.scaler.NonNegativeScaler"]


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def by_skops(model):
    data = skops.io.dumps(model)
    assert set(skops.io.get_untrusted_types(data=data)) <= set(TRUSTED)
    return skops.io.loads(data, trusted=TRUSTED)


each_way = pytest.mark.parametrize("way", [by_pickle, by_joblib, by_skops, copy.deepcopy])


def rows():
    return load_wine(as_frame=True).data.iloc[:40, :6]


def models():
    X = rows()
    target = load_wine().target[:40] + X["ash"].to_numpy()
    return [
        NMFFeatures(2).fit(X),
        NMFFeatures(2, projection="linear", clip=0.02, shift="split", feature_names_out="labels").fit(X),
        NMFFeatures(2, target_weight=1.0, n_nonzero_loadings=3).fit(X, target),
        NonNegativeScaler(scale="robust").fit(X),
    ]


# Forms


def written(value):
    """Return a state as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.name}
    if isinstance(value, dict):
        return {name: written(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [written(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def read(value):
    if isinstance(value, dict):
        if set(value) == {"array", "dtype"}:
            return np.array(value["array"], dtype=value["dtype"])
        return {name: read(part) for name, part in value.items()}
    return [read(part) for part in value] if isinstance(value, list) else value


def record():
    """Write models of the present form, and what they make of the rows."""
    lines = [
        {
            "kind": type(m).__name__,
            "state": written(m.__getstate__()),
            "result": written(m.transform(rows()).to_numpy()),
        }
        for m in models()
    ]
    path = Path(__file__).parent / "states" / f"form_{FORM}.json"
    path.write_text("[\n" + ",\n".join(json.dumps(line, sort_keys=True) for line in lines) + "\n]\n", encoding="utf-8")


def recorded(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_models_of_every_form_are_read(path):
    for line in recorded(path):
        model = KINDS[line["kind"]].__new__(KINDS[line["kind"]])
        model.__setstate__(read(line["state"]))
        assert_allclose(model.transform(rows()), read(line["result"]), rtol=1e-9, atol=1e-9)
        assert set(model.get_params()) == set(KINDS[line["kind"]]().get_params())
        clone(model).fit(rows(), np.arange(40.0))
        by_skops(model)


def test_what_is_saved_is_what_was_recorded():
    """A new parameter or attribute is a new form, once a release has the old one."""
    newest = recorded(RECORDS[-1])
    assert newest[0]["state"][ABOUT]["form"] == FORM, "record it: python tests/test_state.py"
    for model, line in zip(models(), newest, strict=True):
        assert sorted(model.__getstate__()) == sorted(line["state"]), (
            "What is saved has changed. If a release has this form: raise FORM in state.py, and let __setstate__ fill "
            "in what older forms lack. Then record it: python tests/test_state.py"
        )


@each_way
def test_round_trips(way):
    for model in models():
        again = way(model)
        assert_frame_equal(again.transform(rows()), model.transform(rows()), check_exact=True)
        assert vars(again).keys() == vars(model).keys()
        assert again.get_params() == model.get_params()
        assert model.__getstate__()[ABOUT] == {"form": FORM, "version": version("nmf-features")}


@pytest.mark.parametrize("way", [by_pickle, by_joblib, by_skops])
def test_a_newer_form_is_refused(way, monkeypatch):
    for model in models()[::3]:
        newer = {**model.__getstate__(), ABOUT: {"form": FORM + 1, "version": "9.1"}}
        monkeypatch.setattr(type(model), "__getstate__", lambda self, newer=newer: newer)
        with pytest.raises(
            ValueError, match=r"saved by nmf-features 9\.1, in form .*; .* Install nmf-features 9\.1 or"
        ):
            way(model)


def test_a_state_without_a_form_is_an_older_one():
    for model in models()[::3]:
        state = {name: value for name, value in vars(model).items() if name != "clip"}
        old = type(model).__new__(type(model))
        old.__setstate__(state)
        assert old.clip is None
        assert_frame_equal(old.transform(rows()), model.transform(rows()))


# Labels


MONTHS = {
    "naive": pd.date_range("2024-01-31", periods=6, freq="ME"),
    "zone": pd.date_range("2024-10-26 22:30", periods=6, freq="h", tz="Europe/Berlin"),  # one hour comes twice
    "offset": pd.date_range("2024-01-31", periods=6, tz="+02:00"),
    "nanoseconds": pd.date_range("2024-01-01 00:00:00.123456789", periods=6, freq="ns"),
    "seconds": pd.date_range("3024-01-31", periods=6, unit="s"),
}


@each_way
@pytest.mark.parametrize("labels", MONTHS)
def test_timestamps_stay_timestamps(labels, way):
    X = rows().set_axis(MONTHS[labels], axis=1)
    columns = X.columns.tolist()
    for model in (
        NMFFeatures(2).fit(X),
        NMFFeatures(2, variables=columns[:4], align_to=NMFFeatures(2).fit(X).tidy().to_dict("list")).fit(X),
        NonNegativeScaler().fit(X),
    ):
        again = way(model)
        assert_frame_equal(again.transform(X), model.transform(X))
        for name in ("_labels", "variables_", "variables"):
            kept = getattr(again, name, None) or []
            assert kept == (getattr(model, name, None) or [])
            assert [(x.unit, str(x.tz)) for x in kept] == [(x.unit, str(x.tz)) for x in columns[: len(kept)]]
        assert again.get_params() == model.get_params()


def test_labels_in_pairs_and_zones_without_a_name():
    X = rows().set_axis(pd.MultiIndex.from_product([["a", "b"], MONTHS["naive"][:3]]), axis=1)
    nmf = NMFFeatures(2).fit(X)
    assert by_skops(nmf).variables_ == nmf.variables_ == X.columns.tolist()
    odd = rows().set_axis(pd.date_range("2024-01-31", periods=6, tz=timezone(timedelta(hours=1), "home")), axis=1)
    nmf = NMFFeatures(2).fit(odd)
    assert by_pickle(nmf).variables_ == nmf.variables_


if __name__ == "__main__":
    record()
