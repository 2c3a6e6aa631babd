"""From a finished run to weights that come with the package."""
