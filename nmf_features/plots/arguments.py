"""Checks of the arguments of displays."""

from numbers import Integral

from sklearn.utils.validation import check_is_fitted

from ..estimator import NMFFeatures


def check_fitted(nmf):
    """Refuse anything but a fitted NMFFeatures with components."""
    if not isinstance(nmf, NMFFeatures):
        raise TypeError(
            f"nmf is {type(nmf).__name__}; wanted a fitted NMFFeatures. Of a pipeline pass that step, for example "
            "pipeline[-1], and the X that reaches it."
        )
    check_is_fitted(nmf)
    if nmf.n_components_ == 0:
        raise ValueError("n_components=0: there are no components to draw. Fit with n_components=1 or more.")


def choice(argument, value, choices):
    """Return what a string stands for in the dict of choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument} is {value!r}; wanted one of {list(choices)}.")
    return choices[value]


def check_whole(argument, value):
    """Refuse anything but a whole number, 1 or more."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{argument} is {value!r}; wanted a whole number, 1 or more.")


def check_length(argument, values, length, of_what):
    """Refuse values that are not one-dimensional and of the right length."""
    shape = getattr(values, "shape", (len(values),))  # a list may hold tuples
    if shape != (length,):
        raise ValueError(f"{argument} has shape {shape}; wanted ({length},), as there are {length} {of_what}.")
