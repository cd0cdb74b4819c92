"""A loss: a name for a beta-divergence, for amounts with many exact zeros, such as daily rainfall."""

from nmf_features.core.beta import BetaDivergence

# The deviance of Tweedie's family with power p is twice the beta-divergence with beta = 2 - p. A
# power of 1.5 is a sum of a Poisson number of gamma amounts: showers.
COMPOUND_POISSON = BetaDivergence(0.5)
