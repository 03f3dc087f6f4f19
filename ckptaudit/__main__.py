"""``python -m ckptaudit``."""

import sys

from .cli import main

sys.exit(main())
