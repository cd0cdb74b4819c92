"""How a benchmark process hands its rows to run.py: as lines of JSON on standard output, and nothing else there."""

import json
import os
import sys


class Rows:
    """Standard output taken over: what others print there, compiled libraries too, goes to standard error."""

    def __init__(self):
        self.file = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def emit(self, row):
        """Hand over one row, at once."""
        print(json.dumps(row), file=self.file, flush=True)


def say(text):
    """Tell people how far it is."""
    print(text, file=sys.stderr, flush=True)
