"""Which folder of the package may import which; docs/architecture.md draws the same arrows."""

from __future__ import annotations

from places import ROOT

PACKAGE = ROOT / "scdrugmap"


# A folder may import the folders named beside it; root modules are free to all.
LAYERS = {
    "data": set(),
    "models": set(),
    "plots": set(),
    "embeddings": {"data", "models"},
    "prompting": {"data", "models"},
    "evaluation": {"data", "models", "embeddings", "prompting", "plots"},
    "prediction": {"data", "models", "embeddings", "prompting", "evaluation"},
    "app": {"data", "models", "embeddings", "prompting", "plots", "evaluation", "prediction"},
    "cli": {"data", "models", "embeddings", "prompting", "evaluation", "prediction"},
}


# The same inside evaluation, where `experiment` and `benchmark` are modules of their own.
EVALUATION = {
    "experiment": set(),
    "cells": set(),
    "metrics": set(),
    "results": {"experiment", "metrics"},
    "strategies": {"experiment", "cells", "metrics"},
    "splits": {"experiment", "cells", "metrics", "results", "strategies"},
    "run": {"experiment", "cells", "metrics", "results", "strategies", "splits"},
    "plan": {"experiment", "cells", "metrics", "results", "strategies", "splits", "run"},
    "analysis": {"experiment", "metrics", "results"},
    "report": {"experiment", "metrics", "results", "analysis", "plan"},
    "audit": {"cells", "metrics", "splits"},
    "benchmark": {"experiment", "cells", "results", "run", "plan"},
}
