"""The factorisation itself, on plain arrays, without dataframes, estimators or plots."""
