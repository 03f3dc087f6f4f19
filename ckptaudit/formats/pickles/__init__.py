"""The inert pickle machine: what a pickle builds, as nodes, when nothing that it names is imported or called."""
