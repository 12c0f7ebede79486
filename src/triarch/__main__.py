"""`python -m triarch` is the command line."""

import sys

from triarch.cli import main

sys.exit(main())
