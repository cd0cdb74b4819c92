"""What to say of names that a table does not have: all that it has, if they are few, else the nearest."""

from difflib import get_close_matches
from numbers import Real

FEW = 20  # columns that are listed in full
MOST = 5  # unknown names, and nearest ones of each, that are shown


def some(names):
    """Return names as text, the first of them if they are many."""
    names = list(names)
    return f"{names[:MOST]} and {len(names) - MOST} more" if len(names) > MOST else f"{names}"


def offer(unknown, labels):
    """Return the part of a sentence, after "wanted", that says which labels there are in place of unknown names."""
    labels = list(labels)
    if labels == list(range(len(labels))):
        return f"positions from 0 to {len(labels) - 1}"
    if len(labels) <= FEW:
        return f"names of columns among {labels}"
    near = {name: _nearest(name, labels) for name in list(unknown)[:MOST]}
    found = [f"{name!r}: {', '.join(map(repr, names))}" for name, names in near.items() if names]
    close = f"the nearest are, for {'; for '.join(found)}" if found else f"they begin with {labels[:MOST]}"
    return f"names among its {len(labels)} columns; {close}"


def _nearest(name, labels):
    if isinstance(name, Real):
        return sorted((label for label in labels if isinstance(label, Real)), key=lambda label: abs(label - name))[:2]
    by_text = {}
    for label in labels:
        by_text.setdefault(str(label).casefold(), []).append(label)
    texts = get_close_matches(str(name).casefold(), by_text, n=3, cutoff=0.6)
    return [label for text in texts for label in by_text[text]][:MOST]
