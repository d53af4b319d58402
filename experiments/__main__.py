"""`python -m experiments COMMAND`."""

import sys

from experiments.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
