"""Learners: networks, and the distributions that fresh policies are drawn from. A network is a file and a line below.

One more table of convolutions before dense layers is an entry of `cnn.CONVOLUTIONS`. Any other architecture is a file
that calls `register_network`, as a user's own does.
"""

from floppy.learner.distribution import NAMED_DISTRIBUTIONS as NAMED_DISTRIBUTIONS
