"""The project that a command is run in."""

from __future__ import annotations

import os

from ..config import Config, find_config, load_config


def enter_project(path: str | None) -> Config:
    """Read the configuration, the nearest one where none is named, and go to its folder.

    There its paths mean what they say, modules are imported from where the project's tests import them, and reports
    name files as the repository does.
    """
    found = path or find_config()
    config = load_config(found)
    if config.folder:
        os.chdir(config.folder)
        config = load_config(os.path.basename(config.path))
    return config
