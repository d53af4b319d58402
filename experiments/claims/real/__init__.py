"""Claims at real scale: CIFAR-10 as a whole. At full scale a tenth of it, at paper scale all images.

In the order of what an hour of an accelerator teaches; `claims accelerator` takes them one after the other.
"""
