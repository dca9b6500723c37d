"""`python -m sscl_experiments` is `sscl`."""

from .cli import main

raise SystemExit(main())
