"""One trainer for every method: objective, optimizer, step, epoch, run, sweep."""
