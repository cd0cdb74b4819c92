"""Names of components after the columns that dominate them."""

import numpy as np

DOMINANT = 0.5  # of the largest loading of the component: a column with less is not named


def labelled(H, terms, numbered, taken=(), m=3):
    """Return a label for each component (a row of H): up to m dominant columns, the largest loading first.

    Components that would name the same columns name more of them, up to m. If they still do, or a name is ``taken``,
    the component's name by number is added; a component of zeros has that name alone.
    """
    order = np.argsort(-H, axis=1, kind="stable")
    loadings = np.take_along_axis(H, order, axis=1)
    most = np.minimum((loadings > 0).sum(axis=1), m)
    named = np.minimum((loadings >= DOMINANT * loadings[:, :1]).sum(axis=1), most)
    while True:
        sets = [frozenset(at[:count]) for at, count in zip(order.tolist(), named, strict=True)]
        longer = [t for t, columns in enumerate(sets) if sets.count(columns) > 1 and named[t] < most[t]]
        if not longer:
            break
        named[longer] += 1
    texts, labels = [" + ".join(str(terms[j]) for j in at[:count]) for at, count in zip(order, named, strict=True)], []
    for t, number in enumerate(numbered):
        label = texts[t]
        if label and (sets.count(sets[t]) > 1 or texts.count(label) > 1 or label in taken):
            label = f"{label} ({number})"
        labels.append(number if not label or label in taken else label)
    return labels
