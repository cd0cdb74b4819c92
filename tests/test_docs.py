"""What the documentation says works: the Python blocks of its pages, its commands, its examples, its pictures."""

import ast
import contextlib
import importlib.util
import re
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import test_readme
from numpy.testing import assert_allclose
from scipy import sparse
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_wine
from sklearn.metrics import mean_tweedie_deviance

import nmf_features
from nmf_features import NMFFeatures, NonNegativeScaler, factorize, objective, plots
from nmf_features.core.losses import LOSSES
from nmf_features.core.solvers import SOLVERS
from nmf_features.core.starts import STARTS
from nmf_features.scaling import SCALES

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLES = DOCS / "examples"


def expanded(path):
    """Return a page with the parts of other files that it includes."""

    def part(directive):
        text = expanded((path.parent / directive[1].strip()).resolve())
        options = {
            name: one or other
            for name, one, other in re.findall(r"^:([\w-]+): *(?:\"(.*)\"|'(.*)')$", directive[2], flags=re.MULTILINE)
        }
        if "start-after" in options:
            _, found, text = text.partition(options["start-after"])
            assert found
        if "end-before" in options:
            text, found, _ = text.partition(options["end-before"])
            assert found
        return text

    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```\{include\} (.+)\n((?:.*\n)*?)```$", part, text, flags=re.MULTILINE)


PAGES = {path.stem: expanded(path) for path in sorted(DOCS.glob("*.md"))}
WITH_CODE = [name for name, text in PAGES.items() if "```python\n" in text]
OWN = {path.name: path.read_text(encoding="utf-8") for path in [*DOCS.glob("*.md"), DOCS.parent / "CONTRIBUTING.md"]}
COMMANDS = sorted(
    {
        line
        for text in OWN.values()
        for block in re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    }
    | {command for text in OWN.values() for command in re.findall(r"`((?:make|nmf-features|pip|python) [^`]+)`", text)}
)


def load(path):
    """Import a file of the documentation."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def enter(monkeypatch):
    """Enter something in a dictionary of the package, for one test."""
    return monkeypatch.setitem


@pytest.mark.parametrize("name", WITH_CODE)
def test_page(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    text, printed = PAGES[name], {}

    def record(*values):
        printed[sys._getframe(1).f_lineno] = " ".join(map(str, values))

    names = {"__name__": "__main__", "print": record}
    with contextlib.chdir(tmp_path), warnings.catch_warnings():
        # feature-engine up to 1.9.4 calls DataFrame.drop with a keyword that pandas 3.1 is about to drop.
        warnings.filterwarnings("ignore", "The inplace keyword in DataFrame.drop", DeprecationWarning, "feature_engine")
        for block in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            before = text.count("\n", 0, block.start(1))
            exec(compile("\n" * before + block[1], f"{name}.md", "exec"), names)
    if "matplotlib" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    comments = {
        number: comment[1]
        for number, line in enumerate(text.splitlines(), 1)
        if (comment := re.match(r" *print\(.*\)  # (.*)$", line))
    }
    for number, comment in comments.items():
        if comment == "0, up to rounding":
            assert abs(float(printed[number])) < 1e-9  # of objectives of about 1,000
        else:
            same_but_for_the_last_digit(printed[number], comment)


def same_but_for_the_last_digit(found, wanted):
    """Fits end at slightly different points with other versions of BLAS: decimals may differ in the last digit by 1."""
    decimal = r"-?\d+\.\d+"
    assert re.sub(decimal, "", found) == re.sub(decimal, "", wanted), f"{found} != {wanted}"
    for a, b in zip(re.findall(decimal, found), re.findall(decimal, wanted), strict=True):
        assert abs(float(a) - float(b)) < 1.5 * 10.0 ** -len(b.split(".")[1]), f"{found} != {wanted}"


def test_blocks_are_found():
    assert len(WITH_CODE) > 6
    assert "NMFFeatures(n_components=4, variables=numeric)" in PAGES["start"]  # from README
    assert "## Quick start" not in PAGES["index"]


def test_there_are_commands():
    assert {command.split()[0] for command in COMMANDS} == {"make", "nmf-features", "pip", "python"}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_exists(command, capsys):
    test_readme.test_command_exists(command, capsys)


def test_every_public_name_is_on_the_api_page():
    documented = set(re.findall(r"^\.\. auto\w+:: (\w+)$", PAGES["api"], flags=re.MULTILINE))
    assert documented == {*nmf_features.__all__, *plots.__all__}
    sources = [path.read_text(encoding="utf-8") for path in Path(plots.__file__).parent.glob("*.py")]
    displays = {name for source in sources for name in re.findall(r"^class (\w+Display)", source, flags=re.MULTILINE)}
    assert displays == {name for name in plots.__all__ if name.endswith("Display")}


def test_every_example_is_shown():
    shown = re.findall(r"^```\{literalinclude\} examples/(.+)$", PAGES["extend"], flags=re.MULTILINE)
    assert sorted(shown) == sorted(path.name for path in EXAMPLES.glob("*.py"))


# The pictures

architecture = load(DOCS / "architecture.py")


@pytest.mark.parametrize("picture", architecture.PICTURES, ids=lambda path: path.stem)
def test_picture_matches_the_imports(picture):
    drawn = architecture.svg(architecture.PICTURES[picture])
    assert picture.read_text(encoding="utf-8") == drawn, "run python docs/architecture.py"


@pytest.mark.parametrize("folder", architecture.PICTURES.values())
def test_imports_point_down(folder):
    edges = architecture.imports(architecture.boxes(folder), folder.replace("/", "."))
    rows, steps = architecture.layers(architecture.reduced(edges))
    row_of = {name: r for r, row in enumerate(rows) for name in row if isinstance(name, str)}
    assert set(row_of) == set(edges)
    assert all(row_of[name] < row_of[other] for name, below in edges.items() for other in below)
    assert all(to[0] == at[0] + 1 for at, to in steps)


def test_core_imports_nothing_from_above():
    boxes = architecture.boxes("nmf_features")
    edges = architecture.imports(boxes, "nmf_features")
    assert edges["core/"] == []
    assert "frames" not in edges["scaling"]  # arrays only
    importers = {
        name for name, files in boxes.items() if any("narwhals" in architecture.imported(*file) for file in files)
    }
    assert importers == {"frames"}


def test_every_form_of_import_is_seen():
    forms = [
        "from .b import f",
        "from . import b",
        "from . import b as other",
        "import nmf_features.b",
        "from nmf_features import b",
        "from nmf_features.b import f",
        "def late():\n    from .b import f",
    ]
    nothing = ["import b", "from b import f", "from numpy import b", "from .c import b"]
    for source, edges in [(form, ["b"]) for form in forms] + [(form, []) for form in nothing]:
        boxes = {name: [("nmf_features", ast.parse(text))] for name, text in {"a": source, "b": ""}.items()}
        assert architecture.imports(boxes, "nmf_features") == {"a": edges, "b": []}, source
    inside = {"from ..b import f": ["b"], "from .. import b": ["b"], "from .b import f": [], "from . import b": []}
    for source, edges in inside.items():
        boxes = {"a/": [("nmf_features.a", ast.parse(source))], "b": [("nmf_features", ast.parse(""))]}
        assert architecture.imports(boxes, "nmf_features") == {"a/": edges, "b": []}, source
        boxes = {"b": [("nmf_features.a", ast.parse(""))], "c": [("nmf_features.a", ast.parse(source))]}
        within = {"b": [], "c": [] if edges else ["b"]}
        assert architecture.imports(boxes, "nmf_features.a") == within, source


def test_chains_are_drawn_and_circles_refused():
    chain = {"a": ["b", "c"], "b": ["c"], "c": []}
    assert architecture.reduced(chain) == {"a": ["b"], "b": ["c"], "c": []}
    with pytest.raises(ValueError, match="import each other"):
        architecture.reduced(chain | {"c": ["a"]})


def test_only_the_estimator_uses_its_private_members():
    package = Path(nmf_features.__file__).parent
    allowed = {
        "estimator.py": {"model._validate_params", "super()._get_param_names"},
        "columns.py": {"columns._refuse_clash"},  # in a class method of theirs
        "dask_tables.py": {"X._meta", "X._meta_nonempty"},  # of Dask, which has no other names for them
        "_warn.py": {"sys._getframe"},
    }
    for path in [path for path in package.rglob("*.py") if path.parent.name != "core"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        foreign = {
            f"{ast.unparse(node.value)}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and re.match("_(?!_|replace$)", node.attr)  # _replace of a named tuple is public
            and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        }
        assert foreign <= allowed.get(path.name, set()), path.name


# The examples of how to extend


def test_start(enter):
    enter(STARTS, "far rows", load(EXAMPLES / "start_from_rows.py").far_rows)
    rng = np.random.default_rng(0)
    pure = rng.uniform(size=(3, 8))
    mixtures = rng.dirichlet([1, 1, 1], size=40)
    X = np.vstack([mixtures[:20], np.eye(3), mixtures[20:]]) @ pure  # rows 20, 21 and 22 are the pure ones
    for data in (X, sparse.csr_array(X)):
        H = STARTS["far rows"](data, 3)
        lifted = pure + 0.01 * pure.mean(axis=1, keepdims=True)
        order = np.argmin(np.abs(H[:, None] - lifted).sum(axis=2), axis=1)
        assert_allclose(H, lifted[order], rtol=1e-12)
        assert sorted(order) == [0, 1, 2]
    assert factorize(X, 3, init="far rows", penalty=0).objective < 1e-6 * np.square(X).sum()


@pytest.mark.parametrize("l1_ratio", [0, 1])
def test_solver(enter, l1_ratio):
    enter(SOLVERS, "exact", load(EXAMPLES / "solver_exact.py").AlternatingExact)
    rng = np.random.default_rng(0)
    X = rng.gamma(1, size=(40, 2)) @ rng.gamma(1, size=(2, 9)) + rng.uniform(size=(40, 9))
    X[rng.uniform(size=X.shape) < 0.1] = np.nan
    options = {"l1_ratio": l1_ratio, "missing_values": "ignore", "sample_weight": rng.uniform(1, 2, size=40)}
    exact, hals = (factorize(X, 2, solver=solver, tol=1e-8, **options) for solver in ("exact", "hals"))
    assert exact.converged
    assert (np.diff(exact.history) <= 1e-12 * np.nansum(np.square(X))).all()
    assert exact.kkt_residual < 1e-4  # the square root of tol
    assert_allclose(exact.objective, hals.objective, rtol=1e-5)  # both at the same minimum, found to about tol


def test_scaling(enter):
    enter(SCALES, "rms", load(EXAMPLES / "scale_rms.py").root_mean_square)
    rng = np.random.default_rng(0)
    X, weights = rng.gamma(1, size=(50, 4)), rng.integers(0, 3, size=50)
    X[X < 0.5] = 0
    plain = NonNegativeScaler(shift=None, scale="rms")
    Z = plain.fit_transform(X)
    assert_allclose(np.square(Z).mean(axis=0), 1, rtol=1e-12)
    assert_allclose(plain.fit_transform(sparse.csr_array(X)).toarray(), Z, rtol=1e-12)
    assert_allclose(plain.fit(X, sample_weight=weights).transform(X), plain.fit(X.repeat(weights, 0)).transform(X))
    split = NonNegativeScaler(shift="split", scale="rms").fit_transform(X)
    assert_allclose(np.square(split).mean(axis=0), 1, rtol=1e-12)
    holes = np.where(rng.uniform(size=X.shape) < 0.2, np.nan, X)
    nmf = NMFFeatures(2, shift=None, scale="rms", missing_values="ignore").fit(holes)
    assert_allclose(nmf.scaling_["factor"], np.sqrt(np.nanmean(np.square(holes), axis=0)), rtol=1e-12)


def test_loss(enter):
    enter(LOSSES, "compound-poisson", load(EXAMPLES / "loss_rain.py").COMPOUND_POISSON)
    rng = np.random.default_rng(0)
    X, W, H = rng.gamma(1, size=(30, 6)), rng.gamma(1, size=(30, 2)), rng.gamma(1, size=(2, 6))
    X[rng.uniform(size=X.shape) < 0.3] = 0  # dry days
    deviance = X.size * mean_tweedie_deviance(X.ravel(), (W @ H).ravel(), power=1.5)
    value = objective(X, W, H, penalty=0, loss="compound-poisson")
    assert_allclose(2 * value, deviance, rtol=1e-12)
    by_name, by_number = (factorize(X, 2, loss=loss, tol=1e-3).objective for loss in ("compound-poisson", 0.5))
    assert by_name == by_number


def test_loss_of_another_kind():
    """Huber's: a few wild cells bend the fit of least squares, and not this one."""
    huber, rng = load(EXAMPLES / "loss_huber.py").Huber, np.random.default_rng(0)
    truth = rng.gamma(1, size=(200, 3)) @ rng.gamma(1, size=(3, 12))
    X, wild = truth + 0.1 * rng.uniform(size=truth.shape), rng.uniform(size=truth.shape) < 0.03
    X[wild] += 50 * rng.uniform(size=wild.sum())
    plain, robust = (factorize(X, 3, penalty=0, loss=loss) for loss in ("frobenius", huber(0.3)))
    errors = [np.abs(f.W @ f.H - truth).mean() for f in (plain, robust)]
    assert errors[1] < errors[0] / 10
    wide = huber(1e3)  # nothing is beyond it: least squares
    assert_allclose(factorize(X, 3, loss=wide, tol=1e-9).objective, factorize(X, 3, tol=1e-9).objective, rtol=1e-6)
    nmf = NMFFeatures(3, loss=huber(0.3), shift=None, scale=None).fit(X)
    cost = partial(minimize_scalar, bounds=(0, 60), method="bounded", options={"xatol": 1e-9})
    expected = [cost(lambda c, x=x: huber(0.3).of_cells(x, c).sum()).x for x in X.T]
    assert_allclose(nmf.column_means_, expected, atol=1e-6)
    assert nmf.score(X) > 0.5


def test_plot(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    df = load_wine(as_frame=True).data
    nmf = NMFFeatures(n_components=3).fit(df)
    display = load(EXAMPLES / "parts_display.py").PartsDisplay.from_estimator(nmf, df, row=5, n_top=20)
    fitted = nmf.transform(df.iloc[[5]]).to_numpy()[0] @ nmf.components_
    assert_allclose(display.parts.sum()[df.columns], fitted, rtol=1e-12)
    longest = max(bar.get_x() + bar.get_width() for bar in display.ax_.patches)
    assert_allclose(longest, fitted.max(), rtol=1e-12)
    assert display.ax_.figure is display.figure_
    sys.modules["matplotlib.pyplot"].close(display.figure_)
