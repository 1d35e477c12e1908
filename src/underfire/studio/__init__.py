"""The local page on which one tries an attack: :mod:`underfire.studio.server` serves it to this machine alone."""
