"""In wide ReLU networks too, noise on all weights at once explodes, and noise on one layer per step does not.

**Statement.** Orvieto, Raj, Kersting and Bach, *Explicit Regularization in Overparametrized Models via Noise
Injection*, AISTATS 2023, https://arxiv.org/abs/2206.04613: small perturbations regularise, but in wide networks those
of different layers multiply, and their variance dominates the regularisation; perturbing layer by layer avoids it.

**Setting.** As in `noise.variance`, with a ReLU between the layers and sigma 0.1: network 20 -> width -> 1, both layers
N(0, 1/width) at the start, 40 Gaussian examples, label noise 0.3; full-batch gradient descent at learning rate 0.02,
750 steps. Layer by layer: sigma on one of the two tensors a step, cyclic. All at once: sigma / sqrt(2) on both. Under
the noise: loss at 200 perturbed points around the trained weights. Theory: the ReLU lets half of the product of the two
layers' noise through, |x|^2 width s^4 / 4, s = 0.1 / sqrt(2).

**Hyperparameters.** sigma is that of a short run on other seeds; rate and length are those of the linear network.

**Success criteria.** As for the linear network. Paper: the standard deviation of the loss under the noise grows with
the width at least twice as much under noise on all weights; at the largest width the test loss under layer-wise noise
is below that under noise on all weights and below gradient descent's (of interest: 5 %). Also tested: it grows at least
tenfold under noise on all weights and at most threefold under layer-wise noise. All in logarithms.

**Observations.** At width 5000 layer-wise noise, which is sqrt(2) times as large on the layer that it perturbs, made
gradient descent unstable at this learning rate: 7 of 8 runs diverged, none under noise on all weights. So nothing is
decided at the largest width. Up to width 2000 the standard deviation grew 7.4 times under noise on all weights and 1.1
times under layer-wise noise, with test losses alike.
"""

import jax

from experiments.claims.claim import Finding, Scale
from experiments.claims.theory.noise_variance import Kind, Size, sweep

RELU = Kind(lambda x, w: jax.nn.relu(x @ w["first"]) @ w["second"], 0.1, 0.5)
SIZES: dict[Scale, Size] = {"smoke": Size((20, 1000), 100, 2), "full": Size((20, 200, 2000, 5000), 750, 8)}


def run(scale: Scale, first_seed: int = 200) -> Finding:
    """Sweep the width of ReLU networks."""
    return sweep(RELU, SIZES[scale], first_seed)
