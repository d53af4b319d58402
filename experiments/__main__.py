"""`python -m experiments COMMAND`."""

import io
import sys

from experiments.runs.last_words import KILLED, last_words


def run() -> int:
    """The command line; one line says so if it is interrupted while it starts, or if a package is missing."""
    try:
        from experiments.cli.main import main

        for stream in (sys.stdout, sys.stderr):  # characters the terminal cannot show are written as \\xe9
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        words = sys.argv[1:]
        if words[:1] in (["train"], ["sweep"]) and "--distributed" not in words:  # see `distributed.join`
            last_words(KILLED)
        return main(words)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("experiments", "pugd_optax"):
            raise
        print(
            f"error: experiments needs {error.name}. Fix: pip install '.[experiments]' in the clone.", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:  # of the imports, which take seconds
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
