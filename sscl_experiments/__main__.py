"""`python -m sscl_core` is `sscl`."""

from .cli import main

raise SystemExit(main())
