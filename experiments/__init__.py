"""One trainer for every method of pugd_optax, and the experiments built on it.

A package imports only from packages below it:

    cli                 the command line
        compare             all methods with the same number of gradient evaluations
    claims              claims of the papers, each with its verdict
    bench               the cost of a step
    training  report    training one run or many; tables and curves of runs
    runs      data      run folders and checkpoints; data sets, batches, augmentation
    models    files     networks; files that are written atomically
    config              settings, their text form, errors, the papers' presets
"""
