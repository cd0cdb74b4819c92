"""What a user's type checker and a package index are told: hints on all that is public, metadata without gaps."""

import inspect
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import nmf_features
from nmf_features import plots

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

SCRIPT = """
import numpy as np
import pandas as pd

from nmf_features import NegativeBinomial, NMFFeatures, NonNegativeScaler, factorize, load_tidy, nnmf, objective
from nmf_features import penalty_path, select_components, stability
from nmf_features.plots import LoadingsDisplay

df = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [2.0, 1.0, 0.5]})
nmf = NMFFeatures(n_components=1, penalty=0, shift=None, loss=NegativeBinomial(0.5), variables=["a", "b"]).fit(df)
W = nmf.fit_transform(df)
share: float = nmf.score(df) + float(nmf.score_samples(df).sum())
names: list[str] = nmf.labels(m=2)
text: str = nmf.sql("t", "sqlite", keep=["a"]) + nmf.report(df).html
lines = pd.concat([nmf.tidy(), nmf.top_features(3)])
Z = NonNegativeScaler(scale="max").fit(df).transform(df)
found = factorize(np.ones((3, 2)), 1, loss=1.5)
cost: float = found.objective - objective(Z, found.W, found.H)
loaded: NMFFeatures = load_tidy(nmf.tidy(), center={"a": 1.0, "b": 0.0})
k: int = select_components(df, range(1, 3), progress=False).n_components
table, model = nnmf(df, n=1, return_transformer=True)
path, runs = penalty_path(df, 1).table, stability(df, 1, n_runs=3).runs
LoadingsDisplay.from_estimator(nmf, n_top=3).plot(kind="bars").figure_.savefig("loadings.png")
"""

WRONG = {
    'NMFFeatures(n_components="3")': "arg-type",
    "NMFFeatures(n_component=3)": "call-arg",
    "NMFFeatures(2, 0.1)": "call-arg|misc",
    "NMFFeatures().fit(df).scor(df)": None,  # scikit-learn has no hints, so an NMFFeatures may have any attribute
    "x: str = NMFFeatures().score(df)": "assignment",
    "factorize(df, 2, tol='small')": "arg-type",
    "nmf.sql('t')": "call-arg",
    "n: str = nmf.feature_names_in_": "assignment",
    "z: str = NonNegativeScaler().fit(df).feature_names_in_": "assignment",
}


def check(script, tmp_path):
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed: pip install mypy")
    path = tmp_path / "script.py"
    path.write_text(script, encoding="utf-8")
    command = ["--strict", "--follow-imports=silent", "--ignore-missing-imports", "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *command, str(path)],
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    return done.stdout + done.stderr


def test_a_script_under_mypy(tmp_path):
    assert check(SCRIPT, tmp_path).startswith("Success")
    wrong = check(SCRIPT + "\n".join(WRONG), tmp_path).splitlines()
    first = SCRIPT.count("\n") + 1
    for number, (line, code) in enumerate(WRONG.items(), first):
        found = [said for said in wrong if f"script.py:{number}: error" in said]
        assert bool(found) == bool(code), (line, wrong)
        assert code is None or re.search(rf"\[({code})\]", found[0]), found


def public_functions():
    for module in (nmf_features, plots):
        for name in module.__all__:
            thing = getattr(module, name)
            if not inspect.isclass(thing):
                yield name, thing
                continue
            for part in dir(thing):
                member = inspect.getattr_static(thing, part)
                member = getattr(member, "fget", None) or getattr(member, "__func__", None) or member
                member = getattr(member, "fn", member)  # of available_if
                own = str(getattr(member, "__module__", "")).startswith("nmf_features")
                if own and inspect.isfunction(member) and (part == "__init__" or not part.startswith("_")):
                    yield f"{name}.{part}", member


def test_every_public_signature_has_hints():
    names = dict(public_functions())
    assert len(names) > 60
    for name, function in names.items():
        if name == "NMFFeatures.columns_":
            continue  # for plots, not for users
        signature = inspect.signature(function)
        bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
        assert bare in ([], ["cls"]), name
        assert signature.return_annotation is not signature.empty, name


def test_the_package_says_that_it_has_hints():
    assert (Path(nmf_features.__file__).parent / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_links_of_readme_lead_to_the_repository_once_it_has_an_address(monkeypatch):
    pytest.importorskip("hatchling")
    monkeypatch.syspath_prepend(ROOT)
    from hatch_build import Readme

    def links(**metadata):
        metadata |= {"version": "1.2.3"}
        Readme(str(ROOT), {}).update(metadata)
        return re.findall(r"\]\(([^)]+)\)", metadata["readme"]["text"])

    for link, before in zip(links(urls={"Source": "https://example.org/us"}), links(), strict=True):
        if before.startswith("http"):
            assert link == before
        else:
            kind = "raw" if before.endswith(".png") else "blob"
            assert (ROOT / before).is_file()
            assert link == f"https://example.org/us/{kind}/v1.2.3/{before}"


def test_citation_has_the_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    told = dict(re.findall(r"^(\w[\w-]*): (.+)$", citation, flags=re.MULTILINE))
    assert told["version"] == PROJECT["version"]
    assert told["license"] == PROJECT["license"]
    assert told["abstract"] == PROJECT["description"]
    assert (
        re.findall(r"^  - (.+)$", citation.partition("keywords:")[2].partition("references:")[0], re.MULTILINE)
        == (PROJECT["keywords"])
    )


def test_workflows_run_what_developers_run():
    workflows = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / ".github/workflows").glob("*.yml")}
    assert "- run: .ci/run" in workflows["checks.yml"]
    assert "uses: ./.github/workflows/checks.yml" in workflows["release.yml"]
    assert "run: .ci/wheel dist/*.whl" in workflows["release.yml"]
    assert all(os.access(ROOT / ".ci" / name, os.X_OK) for name in ("run", "wheel"))
