"""Measurements outside of the training step: pure functions of a loss and its parameters.

`loss_fn(params) -> scalar` is bound by the caller to its data, one batch or many. Every function can be jitted, except
`delta_report`, `delta_table` and `radius_curve`, which compile what they measure, and `pac_bayes_bound`, which is
computed in float64 on the host.
"""

from pugd_optax.diagnostics.class_bound import ClassBound as ClassBound, class_bound as class_bound
from pugd_optax.diagnostics.delta import (
    DeltaReport as DeltaReport,
    delta_report as delta_report,
    delta_table as delta_table,
)
from pugd_optax.diagnostics.hessian import (
    hessian_eigenvalues as hessian_eigenvalues,
    hessian_trace as hessian_trace,
    leading_eigenvalue as leading_eigenvalue,
)
from pugd_optax.diagnostics.landscape import (
    filter_normalized_direction as filter_normalized_direction,
    loss_line as loss_line,
    loss_surface as loss_surface,
)
from pugd_optax.diagnostics.pac_bayes import pac_bayes_bound as pac_bayes_bound, perturbed_risk as perturbed_risk
from pugd_optax.diagnostics.radius import RadiusCurve as RadiusCurve, radius_curve as radius_curve
from pugd_optax.diagnostics.sharpness import (
    average_sharpness as average_sharpness,
    gradient_norm as gradient_norm,
    sharpness as sharpness,
)

__all__ = [
    "ClassBound",
    "DeltaReport",
    "RadiusCurve",
    "average_sharpness",
    "class_bound",
    "delta_report",
    "delta_table",
    "filter_normalized_direction",
    "gradient_norm",
    "hessian_eigenvalues",
    "hessian_trace",
    "leading_eigenvalue",
    "loss_line",
    "loss_surface",
    "pac_bayes_bound",
    "perturbed_risk",
    "radius_curve",
    "sharpness",
]
