"""Claims of the papers, one a module: table over seeds, picture, verdict."""

TOY = (
    "pegr.signal",
    "noise.explicit",
    "noise.variance",
    "gr.cost",
    "gr.bias",
    "gr.flooding",
    "unify.table",
    "bound.pac",
)
"""Theory in small: `run(scale, first_seed)`."""
TRAINED = (
    "rts.early",
    "rts.radius",
    "rts.timing",
    "rts.scale",
    "rts.all",
    "lpg.balanced",
    "lpg.longtail",
    "lpg.noisy",
    "lpg.plugin",
)
"""Whole trainings: `run(scale, first_seed, lab)`, see `study`."""
NAMES = TOY + TRAINED
