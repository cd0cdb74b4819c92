"""Linear scores as a SELECT: a database computes them where the rows are.

    z = 0 where x <= offset, else (x - offset) / factor, up to its upper bound       shift, clip and scale
    score_t = sum_j h_tj z_j                                                         projection="linear"

Exact scores are not offered: they minimise |z - w H|^2 + penalty over w >= 0, and which scores are zero has to be found
by steps of different number for each row; a SELECT has no steps. Numbers are written in full, and with an exponent,
which both dialects read as double precision. A column is always named with its table: SQLite takes a quoted name
alone, if there is no such column, for a text.
"""

import numpy as np

DIALECTS = ("duckdb", "sqlite")
GROUP = 100  # terms in a bracket: both dialects limit how deep a sum may nest, at about 1,000


def select(columns, table, dialect, keep=None):
    """Return the SELECT with the scores of the rows of a table; see :meth:`NMFFeatures.sql`."""
    model = columns.model
    if model.projection != "linear":
        raise ValueError(
            f"projection={model.projection!r}: exact scores solve a least-squares problem for each row, in steps that "
            'a SELECT cannot take. For scores X H\' fit with projection="linear"; for exact ones use transform.'
        )
    if dialect not in DIALECTS:
        raise ValueError(f"dialect is {dialect!r}; wanted one of {list(DIALECTS)}, which the text was tried in.")
    if columns.n_components == 0:
        raise ValueError("n_components=0: there is nothing to compute.")
    if columns.scaling.bounded and model.out_of_range == "raise":
        raise ValueError('out_of_range="raise": a SELECT cannot refuse rows. set_params(out_of_range="clip") first.')
    kept = [columns.labels[j] for j in columns.kept] if keep is None else _listed(keep, "keep")
    _check_names(columns, kept)

    inner = "z_"
    while any(name.casefold().startswith(inner) for name in kept):  # names of scaled columns that no other has
        inner += "_"
    scaled = [
        (j, cell) for j, cell in enumerate(_scaled(columns)) if cell is not None and model.components_[:, j].any()
    ]
    within = [f"x.{_quoted(name)}" for name in kept] + [f"{cell} AS {inner}{j + 1}" for j, cell in scaled]
    outside = [f"z.{_quoted(name)} AS {_quoted(name)}" for name in kept]
    for name, loadings in zip(columns.component_names, model.components_.tolist(), strict=True):
        terms = [f"{_number(loadings[j])} * z.{inner}{j + 1}" for j, _ in scaled if loadings[j]]
        outside.append(f"{_sum(terms)} AS {_quoted(name)}")
    place = ".".join(_quoted(part) for part in _listed(table, "table"))
    return f"SELECT\n  {_lines(outside)}\nFROM (\n  SELECT\n    {_lines(within, 4)}\n  FROM {place} AS x\n) AS z"


def _scaled(columns):
    """Return an expression for each scaled column, None for a constant one, which is 0."""
    scaling, found = columns.scaling, []
    width = 2 if scaling.split else 1
    for j, name in enumerate(columns.variables):
        x, offset, factors = f"x.{_quoted(name)}", scaling.offset[j], scaling.factor[width * j : width * (j + 1)]
        if scaling.constant[j]:
            found += [None] * width
        elif scaling.signed:
            found.append(_divided(_minus(x, offset), factors[0]))
        else:
            highest = min(scaling.upper[j], offset + factors[0] if scaling.capped else np.inf)
            found.append(_above(x, offset, factors[0], highest))
            if scaling.split:
                lowest = max(scaling.lower[j], offset - factors[1] if scaling.capped else -np.inf)
                found.append(_below(x, offset, factors[1], lowest))
    return found


def _above(x, offset, factor, highest):
    """Return what lies above the offset. NULL stays NULL, and NaN, which DuckDB sorts above all numbers, NaN."""
    value = _divided(_minus(x, offset), factor)
    zero = f"CASE WHEN {x} <= {_number(offset)} THEN {_number(0)}"
    if np.isinf(highest):
        return f"{zero} ELSE {value} END"
    most = _number((highest - offset) / factor)
    return f"{zero} WHEN {x} < {_number(highest)} THEN {value} ELSE {most} + {_number(0)} * {x} END"


def _below(x, offset, factor, lowest):
    """Return what lies below the offset."""
    value = _divided(f"({_number(offset)} - {x})", factor)
    most = f"WHEN {x} <= {_number(lowest)} THEN {_number((offset - lowest) / factor)} " if np.isfinite(lowest) else ""
    return f"CASE {most}WHEN {x} < {_number(offset)} THEN {value} ELSE {_number(0)} * {x} END"


def _minus(x, offset):
    return f"({x} - {_number(offset)})" if offset else x


def _divided(x, factor):
    return f"{x} / {_number(factor)}"  # also by 1, which makes a whole number one of double precision


def _sum(terms):
    """Return a sum in brackets of at most GROUP terms each."""
    if not terms:
        return _number(0)
    while len(terms) > GROUP:
        terms = ["(" + " + ".join(terms[at : at + GROUP]) + ")" for at in range(0, len(terms), GROUP)]
    return " + ".join(terms)


def _lines(parts, indent=2):
    return f",\n{' ' * indent}".join(parts)


def _number(value):
    text = repr(float(value))
    text = text if "e" in text else f"{text}e0"
    return f"({text})" if text.startswith("-") else text


def _quoted(name):
    return '"' + name.replace('"', '""') + '"'


def _listed(names, argument):
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{argument} is {names!r}; wanted a name or a list of names, as text.")
    if argument == "table" and not names:
        raise ValueError("table is an empty list; wanted the name of a table, after that of its schema if it has one.")
    return list(names)


def _check_names(columns, kept):
    """Refuse names that a database cannot have, or cannot tell apart."""
    used = [*columns.variables, *kept]
    if odd := [name for name in used if not isinstance(name, str) or not name or "\0" in name]:
        raise ValueError(
            f"The columns {odd} have names that are no text: a database has none such. Fit on a frame with named "
            "columns."
        )
    for names in (list(dict.fromkeys(used)), [*kept, *columns.component_names]):
        lower = [name.casefold() for name in names]
        if twice := [name for name in names if lower.count(name.casefold()) > 1]:
            raise ValueError(
                f"The columns {twice} have names that a database, which takes a for A, cannot tell apart: rename them, "
                "or leave them out of keep."
            )
