"""Unknown names in wide tables: the nearest are offered, not all of them."""

import numpy as np
import pandas as pd
import pytest

from nmf_features import NMFFeatures, nnmf
from nmf_features.cli import main

WORDS = ["Alcohol", "sulphates", "chlorides", "fixed acidity", "residual sugar"]


@pytest.fixture
def wide():
    X = np.random.default_rng(0).uniform(size=(30, 400))
    return pd.DataFrame(X, columns=[*WORDS, *(f"gene {i:03d}" for i in range(395))])


def test_nearest_names_of_a_wide_table(wide):
    with pytest.raises(ValueError, match=r"\['sulfates', 'alcohol'\], not found in X; wanted names among its 400") as e:
        NMFFeatures(2, variables=["sulfates", "gene 001", "alcohol"]).fit(wide)
    assert str(e.value).endswith("the nearest are, for 'sulfates': 'sulphates'; for 'alcohol': 'Alcohol'.")
    with pytest.raises(ValueError, match="for 'residual_sugar': 'residual sugar'"):
        nnmf(wide, target="residual_sugar")
    with pytest.raises(ValueError, match=r"they begin with \['Alcohol', .*'residual sugar'\]\.$"):
        NMFFeatures(2, variables="zzzz").fit(wide)
    many = [f"protein {i}" for i in range(50)]
    with pytest.raises(ValueError, match=r"'protein 4'\] and 45 more, not found") as e:
        NMFFeatures(2, variables=many).fit(wide)
    assert len(str(e.value)) < 600
    with pytest.raises(ValueError, match=r"variables has \[400\], not found in X; wanted positions from 0 to 399\."):
        NMFFeatures(2, variables=[400]).fit(wide.to_numpy())


def test_nearest_numbers(wide):
    spectrum = wide.set_axis(1100 + 2.5 * np.arange(400), axis=1)
    with pytest.raises(ValueError, match=r"for 1201: 1200\.0, 1202\.5\."):
        NMFFeatures(2, variables=[1201]).fit(spectrum)
    nmf = NMFFeatures(2, variables=[1100.0, 1200.0]).fit(spectrum)
    with pytest.raises(ValueError, match=r"lacks \[1200\.0\], and fit has not seen \[1201\.0\]") as e:
        nmf.transform(spectrum.rename(columns={1200.0: 1201}))
    assert len(str(e.value)) < 200
    with pytest.raises(ValueError, match=r"same order\. It has another order"):
        nmf.transform(spectrum[spectrum.columns[::-1]])


def test_on_the_command_line(wide, tmp_path, capsys):
    train, model = tmp_path / "train.csv", tmp_path / "model.skops"
    wide.to_csv(train, index=False)
    columns = [f"--variables={name}" for name in WORDS[:3]]
    for arguments, nearest in [
        (["fit", train, "--model", model, "--variables", "Sulfates"], "for 'Sulfates': 'sulphates'"),
        (["fit", train, "--model", model, "--target", "alcohols"], "for 'alcohols': 'Alcohol'"),
        (["select", train, "--target", "alcohols"], "for 'alcohols': 'Alcohol'"),
    ]:
        assert main(list(map(str, arguments))) == 2
        error = capsys.readouterr().err
        assert nearest in error
        assert len(error) < 300 + len(str(train))
    assert main(["fit", str(train), "--model", str(model), *columns]) == 0
    wide.rename(columns={"Alcohol": "alcohol"}).to_csv(train, index=False)
    capsys.readouterr()
    assert main(["transform", str(train), "--model", str(model), "--out", str(tmp_path / "new.csv")]) == 2
    assert "lacks the columns ['Alcohol']" in (error := capsys.readouterr().err)
    assert "for 'Alcohol': 'alcohol'" in error
