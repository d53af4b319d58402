"""`python -m experiments COMMAND`."""

import io
import sys


def run() -> int:
    """The command line; where a package of the extra is missing, one line says what to install."""
    try:
        from experiments.cli.main import main

        for stream in (sys.stdout, sys.stderr):  # what the terminal cannot show is written as \\xe9
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return main(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("experiments", "pugd_optax"):
            raise
        print(
            f"error: experiments needs {error.name}. Fix: pip install '.[experiments]' in the clone.", file=sys.stderr
        )
        return 2


if __name__ == "__main__":
    sys.exit(run())
