"""One file per published collection: its layout on disk, labels, splits, licence and citation."""
