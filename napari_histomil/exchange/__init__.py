"""Results as files of other programs: WSInfer, CLAM, and pictures for everyone."""
