"""Every method at one budget of gradient evaluations, on a few small tasks: which one, for whom?"""
