"""Images in: files, the sources they come from, and the DataModule that serves them."""
