"""Errors that others published for these tasks, with their protocols and sources."""

from typing import NamedTuple

from maml_cli.dev.markdown import table


class Anchor(NamedTuple):
    """A published result.

    method: the learner, with its network where it is not 1-40-40-1.
    five, ten: mean squared errors at K = 5 and K = 10, as published; empty for none.
    protocol: inner steps and test tasks, as far as they were published.
    source: paper or code.
    """

    method: str
    five: str
    ten: str
    protocol: str
    source: str


_OP_LSTM = "Huisman et al. 2023 (arXiv:2310.14139), notebook"
_NOT_GRADIENTS = "no gradient steps; 2,000 tasks, three seeds"
FINN = [
    Anchor("MAML", "0.67, 0.38, 0.35", "", "1, 5, 10 steps; one model of K = 10", "Finn et al. 2017, Table 2"),
    Anchor("MAML", "0.661, 0.302, 0.271", "0.451, 0.202, 0.190", "1, 5, 10 steps", "clvrai/MAML-tf"),
    Anchor("MAML, tuned", "0.256", "", "14 steps; 2,000 tasks, three seeds", _OP_LSTM),
    Anchor("MAML, three layers of 91", "0.177", "0.0329", "14 steps; 2,000 tasks, three seeds", _OP_LSTM),
    Anchor("Meta-SGD", "0.48 ± .06", "0.26 ± .03", "1 step", "Park & Oliva 2019"),
    Anchor("Meta-Curvature", "0.41 ± .05", "0.20 ± .02", "1 step", "Park & Oliva 2019"),
    Anchor("CAVIA", "", "0.19 ± .02", "1 step", "Zintgraf et al. 2019"),
    Anchor("LSTM", "0.0280", "0.0084", _NOT_GRADIENTS, _OP_LSTM),
    Anchor("OP-LSTM", "0.1054", "0.00757", "2,000 tasks, three seeds", _OP_LSTM),
]
"""On Finn's sinusoids."""
FREQUENCY = [
    Anchor("MAML", "1.13", "0.77", "", "Li et al. 2017"),
    Anchor("Meta-SGD", "0.90", "0.53", "", "Li et al. 2017"),
    Anchor("L2F", "0.71", "0.37", "", "Baik et al. 2020"),
    Anchor("MAML++", "0.34 ± .04", "", "", "PARL"),
    Anchor("GAP", "0.16 ± .04", "0.04 ± .01", "600 tasks, K query points", "Kang et al. 2023"),
]
"""On sinusoids of varying frequency."""


def anchors_table() -> str:
    """All published results, those on sinusoids of varying frequency last."""
    families = (("Finn's", FINN), ("varying frequency", FREQUENCY))
    rows = [[family, *anchor] for family, anchors in families for anchor in anchors]
    return table(["sinusoids", "method", "K = 5", "K = 10", "protocol", "source"], rows)
