"""Measurements outside the training step: pure functions of a loss and its parameters.

`loss_fn(params) -> scalar` is bound to its data by the caller, one batch or many. Every function can be jitted but
`delta_report` and `delta_table`, which compile the step they measure and answer with Python numbers.
"""

from pugd_optax.diagnostics.delta import (
    DeltaReport as DeltaReport,
    delta_report as delta_report,
    delta_table as delta_table,
)
from pugd_optax.diagnostics.hessian import (
    hessian_eigenvalues as hessian_eigenvalues,
    hessian_trace as hessian_trace,
)
from pugd_optax.diagnostics.landscape import (
    filter_normalized_direction as filter_normalized_direction,
    loss_line as loss_line,
    loss_surface as loss_surface,
)
from pugd_optax.diagnostics.sharpness import (
    average_sharpness as average_sharpness,
    gradient_norm as gradient_norm,
    pac_bayes_bound as pac_bayes_bound,
    sharpness as sharpness,
)

__all__ = [
    "DeltaReport",
    "average_sharpness",
    "delta_report",
    "delta_table",
    "filter_normalized_direction",
    "gradient_norm",
    "hessian_eigenvalues",
    "hessian_trace",
    "loss_line",
    "loss_surface",
    "pac_bayes_bound",
    "sharpness",
]
