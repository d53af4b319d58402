"""One trainer for every method of pugd_optax, and the jobs made of it.

Data flow one way, from words to tables:

    words      cli  options  config  configs/  values  names
    data       data/  split  corrupt  human  stream  augment
    model      models  network  convolution  criteria  recipe
    one step   step  calls  parallel  processes
    one run    job  epoch  evaluation  record  train  checkpoint  interrupt  progress  board  profiling
    many runs  grid  sweep  runs  report  figure
    jobs       demo  bench/  claims/
"""
