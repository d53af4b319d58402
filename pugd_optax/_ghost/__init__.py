r"""Exact per-example gradient norms of any model, without per-example gradients: ghost norms.

The model is not rewritten. The function that returns the losses is traced once (`jaxprs`), and the batch axis is
followed through it (`batch`). Each parameter is followed to the equations in which it is combined with data (`sites`).
The summed losses are differentiated with respect to zeros added there (`norms`), which gives $d_{it}$, the gradient of
the loss of example $i$ with respect to the output of a layer at position $t$. With the layer's input $a_{it}$
(`windows`, for convolutions), the gradient of its matrix is $\sum_t a_{it} d_{it}^\top$. Its squared norm is computed
without an array of that size for the whole batch (`squares`).
"""
