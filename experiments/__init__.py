"""One trainer for every method of pugd_optax, and the jobs made of it.

A room imports from the rooms below it alone:

    cli                 the command line
    claims              claims of the papers, each with its verdict
    bench               what a step costs
    training  report    one run or many, and the tables and curves made of them
    runs      data      run folders and checkpoints; data sets, batches, augmentation
    models    files     networks; files that are written atomically
    config              settings, their text form, errors, the papers' presets
"""
