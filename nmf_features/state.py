"""What a saved model holds, whichever way it is saved: pickle, joblib and skops all take it from here.

A state says the form that it is in, and the version that wrote it. FORM grows with every release that saves something
else than the one before, a new parameter included. An older form is filled in where it is read (``__setstate__``); a
newer one is refused, since nobody can say what the new part means. Labels that are timestamps are written as text, so
that a model file needs no more trust than one with labels of text.
"""

from importlib.metadata import version

import pandas as pd

FORM = 1
ABOUT = "_saved"  # in a state; never in a model
TIMESTAMP = "pandas.Timestamp"  # the key of a label that was one


def saved(state):
    """Return the state to be saved."""
    return {**_mapped(state, _as_text), ABOUT: {"form": FORM, "version": version("nmf-features")}}


def restored(state, defaults):
    """Return the state of a model from a saved one; ``defaults`` holds what older forms lack."""
    about = state.get(ABOUT, {"form": 0})
    if about["form"] > FORM:
        raise ValueError(
            f"This model was saved by nmf-features {about['version']}, in form {about['form']} of its state; version "
            f"{version('nmf-features')} knows forms up to {FORM}. Install nmf-features {about['version']} or newer, or "
            "fit the model anew."
        )
    known = {name: value for name, value in state.items() if name != ABOUT}
    return {**defaults, **_mapped(known, _from_text)}


def _mapped(value, function):
    """Return a value with a function applied to it and, if it is a list, tuple or dict, to what it holds."""
    value = function(value)
    if type(value) is dict:
        return {name: _mapped(part, function) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(part, function) for part in value)
    return value


def _as_text(value):
    if not isinstance(value, pd.Timestamp):
        return value
    naive = value if value.tz is None else value.tz_convert("UTC").tz_localize(None)
    written = {TIMESTAMP: (naive.isoformat(), value.unit, None if value.tz is None else str(value.tz))}
    try:
        return written if _from_text(written) == value else value
    except Exception:  # a time zone of no known name: the label stays as it is
        return value


def _from_text(value):
    if type(value) is not dict or list(value) != [TIMESTAMP]:
        return value
    text, unit, zone = value[TIMESTAMP]
    naive = pd.Timestamp(text).as_unit(unit)
    return naive if zone is None else naive.tz_localize("UTC").tz_convert(zone)
