"""Claims at real scale: CIFAR-10. At full scale a tenth of it; at paper scale half for choosing, half for the verdict.

`claims accelerator` runs them one after the other, the most informative ones first.
"""
