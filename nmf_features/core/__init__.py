"""The factorisation itself, on plain arrays: nothing here knows dataframes, estimators or plots."""
