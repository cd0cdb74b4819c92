"""Colours that can be seen on the paper they stand on, whatever the style: dark on white, light on black.

Greys lie between the text and the paper of the axes. What would be too close to the paper is moved away from it, until
its contrast is enough: (L1 + .05) / (L2 + .05), with L the relative luminance of the lighter and the darker of two
colours (WCAG 2). It is 1 for equal colours, 21 for black on white; 4.5 is wanted for small text, 3 for lines.
"""

import numpy as np

# The colours of Okabe and Ito, which the colour-blind can tell apart too.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"


class Inks:
    """The colours of a drawing, as hex codes, for the paper that axes stand on.

    ``text``, ``quiet`` (labels and notes), ``rest`` (other categories, missing values, lines that only help), ``line``
    (spines), ``faint`` (grids), ``paper`` (gaps between cells, outlines of points), ``series`` (the colours of
    categories), some of these by name, and whether the paper is ``dark``.
    """

    def __init__(self, ax):
        text = ax.title.get_color()  # of the style in which the axes were made
        around = mixed(ax.figure.get_facecolor(), text_on(text))  # if transparent: what this text is meant for
        self.paper = paper = mixed(ax.get_facecolor(), around)
        self.dark = contrast(paper, "white") > contrast(paper, "black")
        self.text = apart(text, [paper, around], 4.5)
        self.quiet = apart(mixed(self.text, paper, 0.63), [paper, around], 4.5)
        self.rest = apart(mixed(self.text, paper, 0.45), [paper], 3)
        self.line = apart(mixed(self.text, paper, 0.14), [paper], 1.3)
        self.faint = apart(mixed(self.text, paper, 0.06), [paper], 1.1)
        least = 5 if self.dark else 2  # the formula flatters dark colours on black
        self.series = [apart(colour, [paper], least) for colour in (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)]
        self.blue, self.vermillion, self.green, self.purple, *_ = self.series

    def amounts(self, name):
        """Return a colour map of amounts, of which 0 is next to the paper and the largest stand out most."""
        if not self.dark:
            return name
        shares = np.linspace(0.3, 1, 256)
        return _colormap(
            mixed(colour, self.paper, share) for colour, share in zip(_colours(f"{name}_r"), shares, strict=True)
        )

    def scale(self, name):
        """Return a colour map of numbers, on dark paper without its darkest colours."""
        return _colormap(c for c in _colours(name) if contrast(c, self.paper) > 2.5) if self.dark else name


def _colours(name):
    from matplotlib import colormaps

    return colormaps[name](np.linspace(0, 1, 256))


def _colormap(colours):
    from matplotlib.colors import ListedColormap

    return ListedColormap(list(colours))


def mixed(colour, paper, share=1):
    """Return a share of a colour (less, where it is transparent), and paper for the rest, as a hex code."""
    from matplotlib.colors import to_hex, to_rgba

    *parts, alpha = to_rgba(colour)
    share *= alpha
    return to_hex(share * np.array(parts) + (1 - share) * np.array(to_rgba(paper)[:3]))


def luminance(colour):
    """Return the relative luminance of a colour: 0 for black, 1 for white."""
    from matplotlib.colors import to_rgba

    parts = np.array(to_rgba(colour)[:3])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(a, b):
    """Return the contrast of two colours, 1 to 21."""
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def apart(colour, papers, least):
    """Move a colour towards black or white until its contrast with all papers is enough, or it can be no more."""

    def of(ink):
        return min(contrast(ink, paper) for paper in papers)

    end = max(("black", "white"), key=of)
    steps = (mixed(colour, end, share) for share in np.linspace(1, 0, 41))
    return next((ink for ink in steps if of(ink) >= least), mixed(end, end))


def text_on(cell):
    """Return black or white, whichever is easier to read on a colour."""
    return max(("black", "white"), key=lambda ink: contrast(ink, cell))
